"""A scripted project, the client of it, and a verifier of its tokens."""

from collections.abc import AsyncIterator

import pytest

from server.adapters.supabase.client import SupabaseClient
from tests.unit.adapters.supabase.project import Project
from tests.unit.adapters.supabase.token_bench import Bench


@pytest.fixture
async def project() -> AsyncIterator[Project]:
    project = Project()
    await project.open()
    yield project
    await project.close()


@pytest.fixture
async def client(project: Project) -> AsyncIterator[SupabaseClient]:
    client = project.client()
    yield client
    await client.aclose()


@pytest.fixture
def bench(project: Project, client: SupabaseClient) -> Bench:
    return Bench(project, client)

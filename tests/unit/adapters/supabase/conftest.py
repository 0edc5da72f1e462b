"""A scripted project and the client of it."""

from collections.abc import AsyncIterator

import pytest

from server.adapters.supabase.client import SupabaseClient
from tests.unit.adapters.supabase.project import Project


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

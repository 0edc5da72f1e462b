"""Every test of this folder runs twice: in memory, and on a real Supabase."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.stores.chat import Chat
from tests.contract.stores.worlds import MemoryWorld, SupabaseWorld, World


@pytest.fixture(params=["memory", "supabase"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    else:
        world = await SupabaseWorld.open(request.getfixturevalue("supabase_env"))
    yield world
    await world.aclose()


@pytest.fixture
async def chat(world: World) -> Chat:
    """A user who has not said anything yet."""
    return Chat(world, await world.sign_up())

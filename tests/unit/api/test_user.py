"""One's profile."""

import pytest

from tests.unit.api.world import World

PROFILE = "/api/v1/user/profile"


async def test_the_profile_is_the_user_with_the_agent(world: World) -> None:
    user = await world.user()
    profile = (await user.get(PROFILE)).json
    assert (profile["id"], profile["email"]) == (user.user_id, world.database.users[user.user_id])
    assert profile["agent_id"] == world.database.profiles[user.user_id].account.agent_id


async def test_the_name_is_changed_and_trimmed(world: World) -> None:
    user = await world.user()
    assert (await user.patch(PROFILE, {"name": "  Анна "})).json["name"] == "Анна"
    assert (await user.get(PROFILE)).json["name"] == "Анна"


@pytest.mark.parametrize(
    "body", [{}, {"name": None}, {"name": ""}, {"name": "x" * 101}, {"email": "other@example.com"}]
)
async def test_nothing_else_of_the_profile_can_be_changed(world: World, body: dict[str, object]) -> None:
    answer = await (await world.user()).patch(PROFILE, body)
    assert (answer.status, answer.code) == (400, "invalid_request")

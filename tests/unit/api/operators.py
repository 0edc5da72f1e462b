"""Operators of the tests' world, and what was recorded of them."""

from dataclasses import replace

from tests.unit.api.world import Client, World


async def admin(world: World) -> Client:
    """A signed-in admin."""
    user = await world.user()
    make_admin(world, user.user_id)
    return user


def make_admin(world: World, user_id: str, is_admin: bool = True) -> None:
    (world.database.admins.add if is_admin else world.database.admins.discard)(user_id)
    row = world.database.profiles[user_id]
    row.account = replace(row.account, is_admin=is_admin)


def recorded(world: World) -> list[tuple[str, str | None, str | None, str | None]]:
    """(action, actor, user, outcome) of all actions, oldest first."""
    return [(one.action, one.actor_id, one.user_id, one.outcome) for one in world.database.actions]

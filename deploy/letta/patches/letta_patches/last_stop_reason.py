"""The end of a run stores the agent's last stop reason with one statement instead of twenty-two.

Letta reads the agent with all that belongs to it, changes the one column, reads all of it again, and discards it.
"""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from letta_patches.flags import flagged
from letta_patches.known import require

_KNOWN: Final = {
    "AgentManager.update_agent_async": "903dc90625094417",
    "RunManager.update_run_by_id_async": "660378bdd069f741",
}
_ending_run: Final = ContextVar("ending_run", default=False)


def apply() -> None:
    """Replace that update of `RunManager.update_run_by_id_async`. Raises UnknownCodeError."""
    from letta.services.agent_manager import AgentManager
    from letta.services.run_manager import RunManager

    met = (AgentManager.update_agent_async, RunManager.update_run_by_id_async)
    require({function: _KNOWN[function.__qualname__] for function in met})
    RunManager.update_run_by_id_async = flagged(_ending_run, RunManager.update_run_by_id_async)
    AgentManager.update_agent_async = _with_one_statement(AgentManager.update_agent_async)


def _with_one_statement(update_agent: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    from letta.orm.agent import Agent
    from letta.orm.errors import NoResultFound
    from letta.server.db import db_registry
    from sqlalchemy import update

    @functools.wraps(update_agent)
    async def update_agent_async(self: Any, agent_id: str, agent_update: Any, actor: Any) -> Any:
        if not _ending_run.get() or agent_update.model_fields_set != {"last_stop_reason"}:
            return await update_agent(self, agent_id=agent_id, agent_update=agent_update, actor=actor)
        of_this_agent = (Agent.id == agent_id, Agent.organization_id == actor.organization_id)
        values = {
            Agent.updated_at: datetime.now(UTC),
            Agent._last_updated_by_id: actor.id,
            Agent.last_stop_reason: agent_update.last_stop_reason,
        }
        async with db_registry.async_session() as session:
            done = await session.execute(update(Agent).where(*of_this_agent).values(values))
        if not done.rowcount:
            raise NoResultFound(f"Agent not found with id {agent_id}")
        return None

    return update_agent_async

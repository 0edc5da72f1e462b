"""Messages are read without their steps and runs, and a new run reads its agent without what belongs to it.

Nothing uses these rows. They are two queries, which grow with the conversation, for each read of messages, and ten
queries for each new run.
"""

from contextvars import ContextVar
from typing import Any, Final

from letta_patches.flags import flagged
from letta_patches.known import require

_KNOWN: Final = {"Message.to_pydantic": "8cfa29b9d96ba743", "RunManager.create_run": "9d07d1cca186c03b"}
_creating_run: Final = ContextVar("creating_run", default=False)


def apply() -> None:
    """Have such queries load columns only. Raises UnknownCodeError."""
    from letta.orm.agent import Agent
    from letta.orm.message import Message
    from letta.services.run_manager import RunManager
    from sqlalchemy import event
    from sqlalchemy.orm import Session, lazyload

    met = (Message.to_pydantic, RunManager.create_run)
    require({function: _KNOWN[function.__qualname__] for function in met})
    of_messages = (lazyload(Message.step), lazyload(Message.run))
    of_agents = (lazyload("*"),)

    def leave_out(query: Any) -> None:
        """Add loader options to a query of whole messages or agents."""
        if not query.is_select or query.is_column_load or query.is_relationship_load or query.bind_mapper is None:
            return
        read = query.bind_mapper.class_
        if read is Message:
            options: tuple[Any, ...] = of_messages
        elif read is Agent and _creating_run.get():
            options = of_agents
        else:
            return
        if any(column["expr"] is read for column in query.statement.column_descriptions):
            query.statement = query.statement.options(*options)

    event.listen(Session, "do_orm_execute", leave_out)
    RunManager.create_run = flagged(_creating_run, RunManager.create_run)

"""Creating a user's agent, one repeatable step at a time."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr

from server.ports.agent import AgentHandle


@dataclass(frozen=True, slots=True)
class AgentTemplate:
    """The configuration of every user's agent. `hash` changes when existing agents need an update.

    `model_url` is LiteLLM's address for Letta, ending in /v1. `context_window` in tokens.
    """

    model: str
    model_url: str
    hash: str
    context_window: int = 32_000


class AgentDirectory(Protocol):
    """Creates a user's agent, one repeatable step at a time."""

    async def create_organization(self, user_id: str) -> str: ...

    async def find_organization(self, user_id: str) -> str | None:
        """Search all organizations for the user's. Slow; only for the run after an interruption of the creation."""
        ...

    async def has_organization(self, organization_id: str) -> bool:
        """Whether the organization exists. Returns False only if the service itself answers that it does not."""
        ...

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        """The organization's one member. `search=False` if there cannot be one yet, since the search is slow."""
        ...

    async def ensure_tools(self, member_id: str) -> None: ...

    async def ensure_provider(self, member_id: str, key: SecretStr, template: AgentTemplate) -> str: ...

    async def ensure_agent(
        self, member_id: str, user_id: str, name: str | None, template: AgentTemplate, *, known: str | None = None
    ) -> str:
        """The user's agent, with the template's configuration: `known` (the recorded one) unless the service answers
        twice that it does not exist; else the one with the user's tag; else a new one."""
        ...

    async def ensure_conversation(self, member_id: str, agent_id: str, *, known: str | None = None) -> str:
        """The agent's conversation: `known` unless the service answers twice that it does not exist; else the agent's
        first; else a new one."""
        ...

    async def write_name(self, agent: AgentHandle, previous: str | None, name: str) -> None:
        """Replace the `previous` name with `name` in the agent's memory block about its user.

        Other text in the block stays. Call it only while no run is active, since the agent could write to the same
        text. Raises PlatformError(too_large) if the name does not fit.
        """
        ...

    async def begin_conversation(self, agent: AgentHandle) -> str:
        """A new conversation of the agent, which knows its memory and no message. Raises AgentGoneError."""
        ...

    async def delete_other_conversations(self, agent: AgentHandle) -> None:
        """Delete every conversation of the agent but the one in `agent`, with its messages. May be repeated."""
        ...

    async def delete_everything(self, organization_id: str, member_id: str | None) -> None:
        """Delete all that the service has of the organization's user, as far as its interface can: agents with their
        conversations and memory, the model provider with its key, the member, the organization. May be repeated after
        any failure. `member_id` None: it is not known whether there is a member."""
        ...

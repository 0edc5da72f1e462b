"""Making a user's agent, one repeatable step at a time."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr

from server.ports.agent import AgentHandle


@dataclass(frozen=True, slots=True)
class AgentTemplate:
    """How every user's agent is made. `hash` changes whenever an existing agent needs to be repaired.

    `model_url` is LiteLLM's as Letta reaches it, ending in /v1. `context_window` in tokens.
    """

    model: str
    model_url: str
    hash: str
    context_window: int = 32_000


class AgentDirectory(Protocol):
    """Making a user's agent, one repeatable step at a time."""

    async def create_organization(self, user_id: str) -> str: ...

    async def find_organization(self, user_id: str) -> str | None:
        """Look through all organizations for the user's: slow, only after a crash between creating and recording."""
        ...

    async def has_organization(self, organization_id: str) -> bool:
        """Whether the organization is still there; False only where the service itself says that it is not."""
        ...

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        """The organization's one member. `search=False` where there cannot be one yet: the search is slow."""
        ...

    async def ensure_tools(self, member_id: str) -> None: ...

    async def ensure_provider(self, member_id: str, key: SecretStr, template: AgentTemplate) -> str: ...

    async def ensure_agent(
        self, member_id: str, user_id: str, name: str | None, template: AgentTemplate, *, known: str | None = None
    ) -> str:
        """The user's agent, with the template's configuration: `known`, the one on record, unless it is gone, which is
        asked twice; else the one with the user's tag; else a new one."""
        ...

    async def ensure_conversation(self, member_id: str, agent_id: str, *, known: str | None = None) -> str:
        """The agent's conversation: `known` unless it is gone, which is asked twice; else its first; else a new one."""
        ...

    async def write_name(self, agent: AgentHandle, told: str | None, name: str) -> None:
        """Put `name` in the place of the one that was `told` last, in what the agent knows of its user.

        What the agent or the user wrote there stays. While the agent runs, it could be writing the same text. Raises
        PlatformError(too_large) where there is no room for it.
        """
        ...

"""Deletes a user's history: messages and what turns hold of them. The agent's memory and all figures stay."""

from dataclasses import dataclass, replace

import structlog

from server.ports import AccountStore, AgentDirectory, AgentHandle

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HistoryDeletion:
    """Call it only while no turn of the user waits or runs, and none can begin."""

    accounts: AccountStore
    directory: AgentDirectory

    async def delete(self, user_id: str, agent: AgentHandle) -> None:
        """Give the agent a new conversation, delete the history here, then the other conversations at the agent's
        service. May be repeated: a failure leaves the agent with a working conversation, and what is left to delete is
        deleted by the next call.

        Raises AgentGoneError, PlatformError(busy | account_blocked | letta_unavailable | supabase_unavailable)."""
        begun = replace(agent, conversation_id=await self.directory.begin_conversation(agent))
        await self.accounts.delete_history(user_id, begun.conversation_id)
        await self.directory.delete_other_conversations(begun)
        log.info("history.deleted", user_id=user_id)

"""Client of the AI Chat Platform. `Chat` is the client, `Auth` the sign-in; README.md has the rest."""

from ai_chat_client.auth import Auth
from ai_chat_client.chat import Chat, OnBusy, Transport
from ai_chat_client.errors import Budget, ChatError, ChatErrorCode
from ai_chat_client.state import (
    AgentState,
    BudgetState,
    Charge,
    ChatMessage,
    ChatState,
    ChatTurn,
    HistoryState,
    ToolCall,
)
from ai_chat_client.tokens import GetToken
from ai_chat_client.wire import ErrorCode, Message, SessionEvent, Turn, Usage

__all__ = [
    "AgentState",
    "Auth",
    "Budget",
    "BudgetState",
    "Charge",
    "Chat",
    "ChatError",
    "ChatErrorCode",
    "ChatMessage",
    "ChatState",
    "ChatTurn",
    "ErrorCode",
    "GetToken",
    "HistoryState",
    "Message",
    "OnBusy",
    "SessionEvent",
    "ToolCall",
    "Transport",
    "Turn",
    "Usage",
]

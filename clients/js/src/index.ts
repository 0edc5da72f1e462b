// The public names of the core entry.
export { Chat, type ChatOptions, createChat, type SendOptions } from "./chat.js";
export { ChatError, type ChatErrorCode, type ErrorInfo } from "./errors.js";
export type { EventOf, EventType } from "./listeners.js";
export type { ChatMessage, ChatState, ChatTurn, ToolCall } from "./state.js";
export type { GetToken } from "./tokens.js";
export type { AgentStatus, ErrorCode, Message, SessionEvent, Turn, Usage } from "./wire.js";

// The conversation of the signed-in user: one chat, from sign-in to sign-out, whichever view is open.
import { type Chat, type ChatState, createChat, type ErrorInfo } from "@ai-chat-platform/client";
import { INITIAL } from "@ai-chat-platform/client/state";
import { effect, signal } from "@preact/signals";
import { auth, farewell, readSession, server, user } from "./session";
import { cutUntil, TappedSocket } from "./wire_tap";

export const chat = signal<Chat | null>(null);
export const conversation = signal<ChatState>(INITIAL);

let userId: string | null = null;

/** Follow the sign-in. Called once, at the start. */
export function followSession(): void {
  effect(() => {
    const id = user.value?.id ?? null;
    if (id === userId) return;
    userId = id;
    chat.peek()?.close();
    chat.value = id ? open() : null;
    conversation.value = chat.peek()?.state ?? INITIAL;
  });
}

const getToken: typeof auth.getToken = (request) => (cutUntil.value ? Promise.reject(new Error("The inspector has cut the line.")) : auth.getToken(request));

function open(): Chat {
  const opened = createChat({ url: server, getToken, WebSocket: TappedSocket });
  opened.subscribe(() => {
    if (chat.peek() !== opened) return;
    conversation.value = opened.state;
    if (opened.state.connection === "closed" && opened.state.error) void endIfOver(opened.state.error);
  });
  return opened;
}

let asked: ErrorInfo | null = null;

/** The server has closed the conversation for good. Ask whether the sign-in has ended too: then the welcome page says why. */
async function endIfOver(error: ErrorInfo): Promise<void> {
  if (error === asked) return; // the state has changed in something else
  asked = error;
  if (farewell.peek()) return; // the account is being deleted: the answer says how that ends
  await auth.getToken({ expired: true }).catch(() => {}); // forgets a session that has ended
  readSession(error);
}

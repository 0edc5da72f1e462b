// Who is signed in, in all tabs of this browser, and what stays of a user who has left.
import type { ErrorInfo } from "@ai-chat-platform/client";
import { ChatError } from "@ai-chat-platform/client";
import { createAuth } from "@ai-chat-platform/client/auth";
import { signal } from "@preact/signals";
import { open, to } from "./route";
import { forgetAllButChoices, remember } from "./preferences";

export const server = location.origin;
export const auth = createAuth({ url: server });
export const user = signal(auth.user);
/** Why the user was signed out, if not by themselves. */
export const signedOutBecause = signal<ErrorInfo | null>(null);
/** The account is gone, or goes: `null` while there is one. Its end is no "signed out elsewhere". */
export const farewell = signal<"asked" | "deleting" | "deleted" | null>(null);

const ENDED = new ChatError("not_signed_in", "You have been signed out. Sign in again to go on.");

/** Call after each change of the stored sign-in. */
export function readSession(because: ErrorInfo = ENDED): void {
  const [before, found] = [user.value, auth.user];
  if (found?.id !== before?.id || found?.name !== before?.name || found?.email !== before?.email) user.value = found;
  if (found && found.id !== before?.id) farewell.value = null;
  if (found) signedOutBecause.value = null;
  else if (before && !farewell.value) signedOutBecause.value = because;
}
addEventListener("storage", ({ key, newValue }) => {
  if (key === "chat.session" || key === null) readSession();
  if (key === "console.left" && newValue) leaveNothing();
});

/** Nothing of the user stays in this tab and browser: no place, no draft, no message that waited to be sent. */
function leaveNothing(): void {
  signedOutBecause.value = null;
  open(to(), { replace: true });
  forgetAllButChoices();
}

/** By the user, in all tabs. */
export async function signOut(): Promise<void> {
  const ended = auth.signOut(); // forgets the tokens at once, whether or not the server can be reached
  readSession();
  leaveNothing();
  remember("left", String(Date.now())); // the other tabs hear of it
  await ended;
}

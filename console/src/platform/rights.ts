// What the signed-in user may do, as the access token says. The server decides; this only chooses what is shown.
import { claimsOf } from "@ai-chat-platform/client/tokens";
import { effect, signal } from "@preact/signals";
import { auth, user } from "./session";

export const isAdmin = signal(false);

let asked: string | null = null;
effect(() => {
  const id = user.value?.id ?? null;
  if (id === asked) return; // another name or address
  asked = id;
  isAdmin.value = false;
  if (id) void auth.getToken().then((token) => id === asked && (isAdmin.value = token !== null && roleOf(token) === "admin"), () => {});
});

function roleOf(token: string): string | undefined {
  return (claimsOf(token) as { app_metadata?: { role?: string } }).app_metadata?.role;
}

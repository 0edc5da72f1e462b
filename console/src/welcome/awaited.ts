// The mail that this browser waits for: kept over reloads, so that the form of its code is there again. The page to which a
// mail's link leads reads it too: it signs in only where the mail was asked for (server/api/pages/callback.js).
import { signal } from "@preact/signals";
import { remember } from "../platform/preferences";

export interface AwaitedMail {
  email: string;
  purpose: "signup" | "recovery";
  /** When it was asked for, in milliseconds. */
  at: number;
}

const LIFETIME = 24 * 3600_000; // milliseconds; no code is valid for longer
export const RESEND_AFTER = 60; // seconds: Auth sends one mail a minute to a user

export const awaited = signal<AwaitedMail | null>(read());

function read(): AwaitedMail | null {
  try {
    const found = JSON.parse(localStorage.getItem("console.awaited") ?? "null") as AwaitedMail | null;
    return found && Date.now() - found.at < LIFETIME ? found : null;
  } catch {
    return null;
  }
}

/** `at`: when the mail was sent, if it was not just now. */
export function awaitMail(email: string, purpose: AwaitedMail["purpose"], at = Date.now()): void {
  awaited.value = { email, purpose, at };
  remember("awaited", JSON.stringify(awaited.value));
}

export function stopWaiting(): void {
  awaited.value = null;
  try {
    localStorage.removeItem("console.awaited");
  } catch {
    // forbidden: nothing was kept
  }
}

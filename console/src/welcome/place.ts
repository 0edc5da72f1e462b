// Where a visitor wanted to go before they were asked to sign in.
import { open, route, to } from "../platform/route";
import { readSession } from "../platform/session";
import { stopWaiting } from "./awaited";

const KEY = "console.wanted";
const EMAIL = "console.email";

/** Note the address that was opened, unless it is one of the welcome page itself. */
export function notePlace(): void {
  if (route.peek()[0] && route.peek()[0] !== "welcome") tab()?.setItem(KEY, location.hash);
}

/** After the sign-in: show the console, at the place that was wanted. */
export function enter(): void {
  stopWaiting();
  leaveWelcome();
  readSession();
}

/** The same without reading the session: another tab has signed in. */
export function leaveWelcome(): void {
  const wanted = tab()?.getItem(KEY);
  for (const key of [KEY, EMAIL]) tab()?.removeItem(key);
  if (route.peek()[0] === "welcome") open(wanted?.startsWith("#/") ? wanted : to("talk"), { replace: true });
}

/** The address that the page of a mail's link hands over. */
export function handedOver(): string {
  return tab()?.getItem(EMAIL) ?? "";
}

function tab(): Storage | null {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

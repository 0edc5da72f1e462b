// What browsers tell about the network and the page, and what a runtime can do. Elsewhere than in a page much is missing.

/** Call `wake` when the network is back or gone, or the page is visible again, or is taken from the browser's cache of pages.
 * Returns a function that stops it. */
export function onWake(wake: () => void): () => void {
  const listening = new AbortController();
  const { document, addEventListener } = globalThis as Partial<typeof globalThis>;
  for (const type of ["online", "offline", "pageshow"]) addEventListener?.(type, wake, listening);
  document?.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake(), listening);
  return () => listening.abort();
}

/** A pause that can be ended early. */
export function pause(milliseconds: number): { over: Promise<void>; end: () => void } {
  let end = () => {};
  const over = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    end = () => (clearTimeout(timer), resolve());
  });
  return { over, end };
}

/** The tab's storage, where there is one and the browser allows it. */
export function tabStorage(): Storage | null {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

/** Whether `fetch` can read an answer while it arrives. React Native's cannot. */
export const canStream = () => "body" in (globalThis.Response?.prototype ?? {});

/** Whether this is a page whose browser lets tabs share a connection. */
export const canShare = () => !!(globalThis.document && globalThis.BroadcastChannel && globalThis.navigator?.locks);

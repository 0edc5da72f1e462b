// How long to wait before the next connection, by how the last one ended.
import type { LinkEnd } from "./link.js";

const SHORTEST = 500; // milliseconds
const LONGEST = 30_000;

/** Milliseconds, or null: do not reconnect.
 *
 * `failures`: connections in a row that ended without having lasted. `random`: 0 to 1. The pause doubles with each, and
 * is spread over its whole second half, so that the clients of a server that restarts do not come back all at once. */
export function pauseBefore({ code, error }: LinkEnd, failures: number, random: number): number | null {
  if (code >= 4500 && code < 4600 && error?.code !== "invalid_cursor") return null;
  const backoff = Math.min(SHORTEST * 2 ** (failures - 1), LONGEST);
  const spread = backoff / 2 + (random * backoff) / 2;
  if (error?.retryAfter) return error.retryAfter * 1000 + random * SHORTEST;
  if (failures > 1) return spread;
  if (code === 4001 || code === 4002) return 0; // a fresh token, or another instance, is all it needs
  if (code === 1001 || code === 1012) return random * 1000; // a deploy: every client is told at once
  return code === 4004 ? 5000 + random * SHORTEST : spread;
}

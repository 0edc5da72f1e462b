// What an access token tells without being verified: whose it is, and when it expires.

/** Asked for an access token whenever one is needed, so it should return a cached one while that is valid for a minute.
 * `expired`: the server said that the last one has expired. null: nobody is signed in. */
export type GetToken = (request: { expired: boolean }) => string | null | Promise<string | null>;

export interface TokenClaims {
  /** The user's id. */
  userId: string | null;
  /** Milliseconds since 1970. */
  expiresAt: number | null;
}

export function claimsOf(token: string): TokenClaims {
  try {
    const payload = token.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/");
    const { sub, exp } = JSON.parse(atob(payload)) as { sub?: string; exp?: number };
    return { userId: sub ?? null, expiresAt: exp ? exp * 1000 : null };
  } catch {
    return { userId: null, expiresAt: null }; // not a JWT
  }
}

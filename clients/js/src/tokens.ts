// What an access token tells without being verified: whose it is, and when it expires.

/** Asked for an access token whenever one is needed, so it should return a cached one while that is valid for a minute.
 * `expired`: the server said that the last one has expired. null: nobody is signed in. */
export type GetToken = (request: { expired: boolean }) => string | null | Promise<string | null>;

export interface TokenClaims {
  /** The user's id. */
  sub?: string;
  /** Expiry, in seconds since 1970. */
  exp?: number;
}

export function claimsOf(token: string): TokenClaims {
  try {
    return JSON.parse(atob(token.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/"))) as TokenClaims;
  } catch {
    return {}; // not a JWT
  }
}

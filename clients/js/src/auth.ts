// Sign-in with the server's own accounts, for apps that do not use supabase-js. The tokens are kept in storage, so that a
// reload does not sign out, and are refreshed once for all tabs: a refresh token can be used only once.
import { ChatError, networkError } from "./errors.js";
import { errorOf } from "./rest.js";
import type { SignedIn, User } from "./wire.js";

export interface AuthOptions {
  url: string;
  /** Where the tokens stay: by default localStorage, or memory where there is none. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
}

export interface Auth {
  /** The signed-in user; null without one. */
  readonly user: User | null;
  signIn(email: string, password: string): Promise<User>;
  /** Resolves to null if the address must be confirmed first, by the link in an e-mail. */
  register(email: string, password: string, name?: string): Promise<User | null>;
  /** Forget the tokens here, and end this session at the server. */
  signOut(): Promise<void>;
  /** For `createChat`. null: nobody is signed in, or the session has ended. */
  getToken(request?: { expired: boolean }): Promise<string | null>;
}

const KEY = "chat.session";
const MARGIN = 90_000; // milliseconds before the expiry

export function createAuth({ url, storage = browserStorage() }: AuthOptions): Auth {
  const api = `${url.replace(/\/+$/, "")}/api/v1/auth`;
  let unstored: SignedIn | null = null; // where the storage is full
  const read = () => {
    try {
      return unstored ?? (JSON.parse(storage.getItem(KEY) ?? "null") as SignedIn | null);
    } catch {
      return null; // not ours
    }
  };
  const forget = () => {
    unstored = null;
    storage.removeItem(KEY);
  };
  /** The expiry by this device's clock, which may be wrong by hours. */
  const keep = (session: SignedIn) => {
    session.expires_at = new Date(Date.now() + session.expires_in * 1000).toISOString();
    forget();
    try {
      storage.setItem(KEY, JSON.stringify(session));
    } catch {
      unstored = session;
    }
    return session.user;
  };
  const post = async (path: string, body: unknown, token?: string) => {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const answer = await fetch(`${api}/${path}`, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => {
      throw networkError();
    });
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  };
  const isFresh = (session: SignedIn) => Date.parse(session.expires_at) - Date.now() > MARGIN;

  const refresh = async (stale: string): Promise<string | null> => {
    const session = read();
    if (!session) return null;
    if (session.access_token !== stale && isFresh(session)) return session.access_token; // another tab did it
    const isCurrent = () => read()?.refresh_token === session.refresh_token; // else somebody signed out, or in, meanwhile
    try {
      const answer = await post("refresh", { refresh_token: session.refresh_token });
      const fresh = (await answer.json()) as SignedIn;
      if (isCurrent()) keep(fresh);
    } catch (error) {
      if ((error as ChatError).retryable) throw error;
      if (isCurrent()) forget();
    }
    return read()?.access_token ?? null;
  };
  let refreshing: Promise<string | null> | null = null;

  return {
    get user() {
      return read()?.user ?? null;
    },
    async signIn(email, password) {
      return keep((await (await post("login", { email, password })).json()) as SignedIn);
    },
    async register(email, password, name) {
      const answer = await post("register", { email, password, ...(name && { name }) });
      return answer.status === 202 ? null : keep((await answer.json()) as SignedIn);
    },
    async signOut() {
      const session = read();
      forget();
      if (session) await post("logout", {}, session.access_token).catch(() => {}); // it ends by itself within the hour
    },
    async getToken({ expired } = { expired: false }) {
      const session = read();
      if (!session) return null;
      if (!expired && isFresh(session)) return session.access_token;
      const task = () => refresh(session.access_token);
      const locks = globalThis.navigator?.locks;
      return (refreshing ??= (locks ? (locks.request(KEY, task) as Promise<string | null>) : task()).finally(() => (refreshing = null)));
    },
  };
}

/** localStorage, or memory where there is none: on a server, or in a browser that forbids it. */
function browserStorage(): NonNullable<AuthOptions["storage"]> {
  try {
    globalThis.localStorage.getItem(KEY);
    return globalThis.localStorage;
  } catch {
    return memory();
  }
}

function memory(): NonNullable<AuthOptions["storage"]> {
  const items = new Map<string, string>();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  };
}

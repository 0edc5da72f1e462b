// Sign-in with the server's own accounts, for apps that do not use supabase-js. The tokens are kept in storage, so that a
// reload does not sign out, and are refreshed once for all tabs: a refresh token can be used only once.
import { ChatError, networkError } from "./errors.js";
import { errorOf, Rest } from "./rest.js";
import type { Problem, SignedIn, User, Verify } from "./wire.js";

export interface AuthOptions {
  url: string;
  /** Where the tokens stay: by default localStorage, or memory where there is none. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
}

export interface Auth {
  /** The signed-in user; null without one. */
  readonly user: User | null;
  signIn(email: string, password: string): Promise<User>;
  /** Resolves to null if the address must be confirmed first: `verify` takes the code of the e-mail. */
  register(email: string, password: string, name?: string): Promise<User | null>;
  /** Sign in by the code of an e-mail to that address. null: the user's other address must be confirmed, too. */
  verify(email: string, code: string, type?: MailType): Promise<User | null>;
  /** Have the e-mail of a registration, or of a change of the address, sent again. */
  resend(email: string, type?: "signup" | "email_change"): Promise<void>;
  /** Ask for an e-mail by whose code a new password can be set. */
  recover(email: string): Promise<void>;
  /** Set a new password by that code, and sign in; the user's other sessions end. The code counts once: after a refused
   * password, call this again with another one. */
  reset(email: string, code: string, password: string): Promise<User>;
  /** The user's other sessions end. Without the current password the sign-in must be less than ten minutes old. */
  changePassword(password: string, currentPassword?: string): Promise<void>;
  /** True: changed. False: it is changed once it is confirmed, by `verify` with the type `email_change`. */
  changeEmail(email: string, currentPassword?: string): Promise<boolean>;
  /** Read the user again, after a change of the name or the address. */
  reloadUser(): Promise<User>;
  /** End the user's sessions on all other devices. */
  signOutOthers(): Promise<void>;
  /** Forget the tokens here, and end this session at the server. */
  signOut(): Promise<void>;
  /** For `createChat`. null: nobody is signed in, or the session has ended. */
  getToken(request?: { expired: boolean }): Promise<string | null>;
}

/** What an e-mail is for; `email`: whatever it is for. */
export type MailType = NonNullable<Verify["type"]>;

const KEY = "chat.session";
const MARGIN = 90_000; // milliseconds before the expiry
const DEADLINE = 30_000;

/** What the user's list of devices calls a program; browsers name themselves. */
function programName() {
  const { process, document } = globalThis as { process?: { platform?: string }; document?: unknown };
  const system = process?.platform;
  if (document || !system) return {};
  return { "User-Agent": `ai-chat-client-js (${{ darwin: "macOS", linux: "Linux", win32: "Windows" }[system] ?? system})` };
}

export function createAuth({ url, storage = browserStorage() }: AuthOptions): Auth {
  const api = `${url.replace(/\/+$/, "")}/api/v1`;
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
  const store = (session: SignedIn) => {
    unstored = null;
    try {
      storage.setItem(KEY, JSON.stringify(session)); // replaced in one step: other tabs never see a user who is signed out
    } catch {
      storage.removeItem(KEY);
      unstored = session;
    }
    return session.user;
  };
  /** The expiry by this device's clock, which may be wrong by hours. */
  const keep = (session: SignedIn) => store({ ...session, expires_at: new Date(Date.now() + session.expires_in * 1000).toISOString() });
  const keepUser = (user: User) => {
    const session = read();
    if (session?.user.id === user.id) store({ ...session, user });
    return user;
  };
  const post = async (path: string, body: unknown, token?: string) => {
    const headers = { "Content-Type": "application/json", ...programName(), ...(token && { Authorization: `Bearer ${token}` }) };
    const signal = AbortSignal.timeout?.(DEADLINE); // some networks swallow requests, and a connection waits for its token
    const answer = await fetch(`${api}/auth/${path}`, { method: "POST", headers, body: JSON.stringify(body), signal }).catch(() => {
      throw networkError();
    });
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  };
  const signedIn = async (answer: Response) => {
    try {
      return (await answer.json()) as SignedIn;
    } catch (cause) {
      throw networkError(cause); // it broke off, or is a page of the network's own
    }
  };
  const end = (session: SignedIn) => post("logout", {}, session.access_token).catch(() => {}); // it ends by itself within the hour
  const isFresh = (session: SignedIn) => Date.parse(session.expires_at) - Date.now() > MARGIN;

  const refresh = async (stale: string): Promise<string | null> => {
    const session = read();
    if (!session) return null;
    if (session.access_token !== stale && isFresh(session)) return session.access_token; // another tab did it
    const isCurrent = () => read()?.refresh_token === session.refresh_token; // else somebody signed out, or in, meanwhile
    try {
      const fresh = await signedIn(await post("refresh", { refresh_token: session.refresh_token }));
      if (isCurrent()) keep(fresh);
    } catch (error) {
      if ((error as ChatError).retryable) throw error;
      if (isCurrent()) forget();
    }
    return read()?.access_token ?? null;
  };
  let refreshing: Promise<string | null> | null = null;
  const getToken = async ({ expired } = { expired: false }) => {
    const session = read();
    if (!session) return null;
    if (!expired && isFresh(session)) return session.access_token;
    const task = () => refresh(session.access_token);
    const locks = globalThis.navigator?.locks;
    return (refreshing ??= (locks ? (locks.request(KEY, task) as Promise<string | null>) : task()).finally(() => (refreshing = null)));
  };
  const rest = new Rest(api, getToken);
  const change = (path: string, body: unknown) => rest.request(`auth/${path}`, { method: "POST", body: JSON.stringify(body) });
  /** Whose code was accepted, but not the new password: a token is good for another one, the code is not. */
  let proved: { email: string; session: SignedIn } | null = null;

  return {
    getToken,
    get user() {
      return read()?.user ?? null;
    },
    async signIn(email, password) {
      return keep(await signedIn(await post("login", { email, password })));
    },
    async register(email, password, name) {
      const answer = await post("register", { email, password, ...(name && { name }) });
      return answer.status === 202 ? null : keep(await signedIn(answer));
    },
    async verify(email, code, type = "signup") {
      const answer = await post("verify", { email, token: code, type });
      if (answer.status === 202) return null;
      const session = await signedIn(answer);
      if (read()?.user.id !== session.user.id) return keep(session);
      await end(session); // who is signed in already stays so, and needs no second session
      return keepUser(session.user);
    },
    async resend(email, type = "signup") {
      await post("resend", { email, type });
    },
    async recover(email) {
      await post("recover", { email });
      proved = null; // the new code counts
    },
    async reset(email, code, password) {
      if (proved?.email === email) {
        const { session } = proved;
        await post("password", { password }, session.access_token).catch((error: ChatError) => {
          if (!error.retryable && error.code !== "weak_password" && error.code !== "invalid_request") proved = null;
          throw error;
        });
        proved = null;
        return keep(session);
      }
      try {
        return keep(await signedIn(await post("reset", { email, token: code, password })));
      } catch (error) {
        const session = (error as { problem?: Problem }).problem?.session;
        if (session) proved = { email, session };
        throw error;
      }
    },
    async changePassword(password, currentPassword) {
      await change("password", { password, ...(currentPassword && { current_password: currentPassword }) });
    },
    async changeEmail(email, currentPassword) {
      const answer = await change("email", { email, ...(currentPassword && { current_password: currentPassword }) });
      const user = read()?.user;
      if (answer.status === 200 && user) keepUser({ ...user, email });
      return answer.status === 200;
    },
    async reloadUser() {
      return keepUser(await rest.json<User>("auth/me"));
    },
    async signOutOthers() {
      await change("logout", { scope: "others" });
    },
    async signOut() {
      const session = read();
      forget();
      if (session) await end(session);
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

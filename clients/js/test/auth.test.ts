import assert from "node:assert/strict";
import { type Mock, type TestContext, test } from "node:test";
import { createAuth } from "../src/auth.js";

type Answer = [status: number, body: unknown];
type Answers = (Answer | Error | Promise<Answer>)[];

/** The server's answers in their order, and the requests it got. */
function scene(context: TestContext, ...answers: Answers) {
  const requests: [path: string, body: unknown][] = [];
  context.mock.method(globalThis, "fetch", async (url: string, init: RequestInit) => {
    requests.push([new URL(url).pathname, init.body ? JSON.parse(init.body as string) : null]);
    const answer = await answers.shift()!;
    if (answer instanceof Error) throw answer;
    return new Response(answer[0] === 204 ? null : JSON.stringify(answer[1]), { status: answer[0] });
  });
  const items = new Map<string, string>();
  const storage = {
    getItem: (key: string) => items.get(key) ?? null,
    setItem: (key: string, value: string) => void items.set(key, value),
    removeItem: (key: string) => void items.delete(key),
  };
  const open = () => createAuth({ url: "https://test/", storage });
  return { auth: open(), open, requests };
}

const session = (number: number, seconds: number): Answer => [
  200,
  {
    ...{ access_token: `access ${number}`, refresh_token: `refresh ${number}`, token_type: "bearer", expires_in: seconds },
    ...{ expires_at: new Date(Date.now() + seconds * 1000).toISOString(), user: { id: "u", email: "a@example.com" } },
  },
];
const problem = (status: number, code: string, retryable: boolean): Answer => [status, { status, code, detail: code, retryable, request_id: "r", errors: [] }];

test("a session survives a reload, and its token is used while it is valid", async (context) => {
  const { auth, open, requests } = scene(context, session(1, 3600));
  await auth.signIn("a@example.com", "secret");
  assert.equal(await open().getToken(), "access 1");
  assert.equal(open().user?.id, "u");
  assert.equal(requests.length, 1);
});

test("outside of browsers a sign-in says which program it is", async (context) => {
  const { auth } = scene(context, session(1, 3600), session(2, 3600));
  const headers = (call: number) => (globalThis.fetch as unknown as Mock<typeof fetch>).mock.calls[call]!.arguments[1]!.headers;
  await auth.signIn("a@example.com", "secret");
  assert.match((headers(0) as Record<string, string>)["User-Agent"]!, /^ai-chat-client-js \((Linux|macOS|Windows)\)$/);
  Object.assign(globalThis, { document: {} });
  context.after(() => delete (globalThis as { document?: unknown }).document);
  await auth.signIn("a@example.com", "secret");
  assert.ok(!("User-Agent" in headers(1)!)); // a browser names itself
});

test("a request that is never answered ends as an unreachable server, and the next one may succeed", async (context) => {
  context.mock.method(AbortSignal, "timeout", () => swallowed.signal);
  const swallowed = new AbortController();
  const { auth, requests } = scene(context, session(1, 60), session(2, 3600));
  await auth.signIn("a@example.com", "secret");
  const fetched = context.mock.method(globalThis, "fetch", async (_: string, { signal }: RequestInit) => {
    await new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason)));
  });
  const refused = assert.rejects(auth.getToken(), { code: "network", retryable: true });
  await new Promise((resolve) => setImmediate(resolve));
  swallowed.abort();
  await refused;
  fetched.mock.restore();
  assert.equal(await auth.getToken(), "access 2");
  assert.equal(requests.length, 2);
});

test("an expiring token is refreshed once, however many ask for it", async (context) => {
  const { auth, requests } = scene(context, session(1, 60), session(2, 3600));
  await auth.signIn("a@example.com", "secret");
  assert.deepEqual(await Promise.all([auth.getToken(), auth.getToken(), auth.getToken()]), ["access 2", "access 2", "access 2"]);
  assert.deepEqual(requests.slice(1), [["/api/v1/auth/refresh", { refresh_token: "refresh 1" }]]);
});

test("a token that the server calls expired is refreshed, whatever its date", async (context) => {
  const { auth } = scene(context, session(1, 3600), session(2, 3600));
  await auth.signIn("a@example.com", "secret");
  assert.equal(await auth.getToken({ expired: true }), "access 2");
});

test("a session that has ended signs out; a server that cannot be reached does not", async (context) => {
  const { auth } = scene(context, session(1, 60), new TypeError("fetch failed"), problem(503, "supabase_unavailable", true), problem(401, "unauthorized", false));
  await auth.signIn("a@example.com", "secret");
  await assert.rejects(auth.getToken(), { code: "network", retryable: true });
  await assert.rejects(auth.getToken(), { code: "supabase_unavailable", retryable: true });
  assert.equal(auth.user?.id, "u");
  assert.equal(await auth.getToken(), null);
  assert.equal(auth.user, null);
});

test("an answer that breaks off, or a page of the network's own, signs nobody out", async (context) => {
  const { auth } = scene(context, session(1, 60), session(2, 3600));
  await auth.signIn("a@example.com", "secret");
  const fetched = context.mock.method(globalThis, "fetch", async () => new Response("<html>Accept our terms"));
  await assert.rejects(auth.getToken(), { code: "network", retryable: true });
  await assert.rejects(auth.signIn("a@example.com", "secret"), { code: "network", retryable: true });
  fetched.mock.restore();
  assert.equal(await auth.getToken(), "access 2");
});

test("a device whose clock is wrong by hours refreshes no more than others", async (context) => {
  const { auth, requests } = scene(context, [200, { ...(session(1, 3600)[1] as object), expires_at: new Date(Date.now() - 7_200_000).toISOString() }]);
  await auth.signIn("a@example.com", "secret");
  assert.equal(await auth.getToken(), "access 1");
  assert.equal(requests.length, 1);
});

test("who signs out, or in as somebody else, while a token is refreshed is not signed in as before again", async (context) => {
  let answer = (_: Answer) => {};
  const late = new Promise<Answer>((resolve) => (answer = resolve));
  const { auth } = scene(context, session(1, 60), session(2, 3600), [204, null], session(3, 60), late, session(5, 3600));
  await auth.signIn("a@example.com", "secret");
  const first = auth.getToken();
  await auth.signOut();
  assert.equal(await first, null);
  assert.equal(auth.user, null);
  await auth.signIn("b@example.com", "secret");
  const second = auth.getToken();
  await auth.signIn("c@example.com", "secret");
  answer(session(4, 3600));
  assert.equal(await second, "access 5");
});

test("where the storage is full one can sign in, until the page is reloaded", async (context) => {
  const { requests } = scene(context, session(1, 3600));
  const storage = { getItem: () => null, removeItem: () => {}, setItem: () => assert.fail("full") };
  const auth = createAuth({ url: "https://test", storage });
  await auth.signIn("a@example.com", "secret");
  assert.equal(await auth.getToken(), "access 1");
  assert.equal(requests.length, 1);
});

test("what the storage holds may be anything", async () => {
  const auth = createAuth({ url: "https://test", storage: { getItem: () => "{broken", removeItem: () => {}, setItem: () => {} } });
  assert.equal(auth.user, null);
  assert.equal(await auth.getToken(), null);
});

test("a wrong password rejects with the server's sentence", async (context) => {
  const { auth } = scene(context, problem(401, "unauthorized", false));
  await assert.rejects(auth.signIn("a@example.com", "wrong"), { name: "ChatError", code: "unauthorized", requestId: "r" });
});

test("a registration that must be confirmed is no session", async (context) => {
  const { auth } = scene(context, [202, { status: "confirmation_required" }]);
  assert.equal(await auth.register("a@example.com", "secret", "Ada"), null);
  assert.equal(await auth.getToken(), null);
});

test("signing out forgets the tokens, even if the server cannot be reached", async (context) => {
  const { auth, requests } = scene(context, session(1, 3600), new TypeError("fetch failed"));
  await auth.signIn("a@example.com", "secret");
  await auth.signOut();
  assert.equal(await auth.getToken(), null);
  assert.equal(requests[1]![0], "/api/v1/auth/logout");
});

const user = (email: string, name = "Ada") => ({ id: "u", email, name });
const created = (number: number, email: string): Answer => [200, { ...(session(number, 3600)[1] as object), user: user(email) }];

test("the code of an e-mail signs in, and where the other address must be confirmed, too, does not", async (context) => {
  const { auth, requests } = scene(context, session(1, 3600), [202, { status: "confirmation_required" }]);
  assert.equal((await auth.verify("a@example.com", "123456"))?.id, "u");
  assert.equal(await auth.getToken(), "access 1");
  assert.deepEqual(requests[0], ["/api/v1/auth/verify", { email: "a@example.com", token: "123456", type: "signup" }]);
  assert.equal(await auth.verify("new@example.com", "123456", "email_change"), null);
  assert.equal(await auth.getToken(), "access 1");
});

test("a new address that is confirmed changes the stored user, not the session", async (context) => {
  const { auth, open, requests } = scene(context, session(1, 3600), created(2, "new@example.com"), [204, null]);
  await auth.signIn("a@example.com", "secret");
  await auth.verify("new@example.com", "123456", "email_change");
  assert.equal(open().user?.email, "new@example.com");
  assert.equal(await open().getToken(), "access 1");
  assert.deepEqual(requests[2], ["/api/v1/auth/logout", {}]);
});

test("e-mails are asked for, and a new password by their code signs in", async (context) => {
  const asked: Answer = [202, { status: "mail_requested" }];
  const { auth, requests } = scene(context, asked, asked, session(1, 3600));
  await auth.resend("a@example.com");
  await auth.recover("a@example.com");
  await auth.reset("a@example.com", "123456", "better");
  assert.equal(await auth.getToken(), "access 1");
  assert.deepEqual(requests, [
    ["/api/v1/auth/resend", { email: "a@example.com", type: "signup" }],
    ["/api/v1/auth/recover", { email: "a@example.com" }],
    ["/api/v1/auth/reset", { email: "a@example.com", token: "123456", password: "better" }],
  ]);
});

test("a code counts once: a password that was refused is replaced without it, and nobody is signed in meanwhile", async (context) => {
  const weak = problem(422, "weak_password", false);
  const refused: Answer = [422, { ...(weak[1] as object), session: session(1, 3600)[1] }];
  const { auth, requests } = scene(context, refused, weak, [204, null]);
  await assert.rejects(auth.reset("a@example.com", "123456", "weak"), { code: "weak_password" });
  assert.equal(auth.user, null);
  await assert.rejects(auth.reset("a@example.com", "123456", "weaker"), { code: "weak_password" });
  assert.equal(auth.user, null);
  await auth.reset("a@example.com", "123456", "better");
  assert.equal(await auth.getToken(), "access 1");
  assert.deepEqual(requests.slice(1), [
    ["/api/v1/auth/password", { password: "weaker" }],
    ["/api/v1/auth/password", { password: "better" }],
  ]);
});

test("a code is read again for another address, and once its sign-in has ended", async (context) => {
  const refused: Answer = [422, { ...(problem(422, "weak_password", false)[1] as object), session: session(1, 3600)[1] }];
  const { auth, requests } = scene(context, refused, session(2, 3600), refused, problem(401, "unauthorized", false), session(3, 3600));
  await assert.rejects(auth.reset("a@example.com", "123456", "weak"));
  await auth.reset("b@example.com", "654321", "better");
  await assert.rejects(auth.reset("a@example.com", "123456", "weak"));
  await assert.rejects(auth.reset("a@example.com", "123456", "better"), { code: "unauthorized" });
  await auth.reset("a@example.com", "111111", "better");
  assert.deepEqual(requests.map(([path]) => path.split("/").at(-1)), ["reset", "reset", "password", "password", "reset"]);
});

test("a changed password leaves the session as it is; the current one is sent only if it is given", async (context) => {
  const { auth, requests } = scene(context, session(1, 3600), [204, null], [204, null]);
  await auth.signIn("a@example.com", "secret");
  await auth.changePassword("better", "secret");
  await auth.changePassword("best");
  assert.deepEqual(requests.slice(1), [
    ["/api/v1/auth/password", { password: "better", current_password: "secret" }],
    ["/api/v1/auth/password", { password: "best" }],
  ]);
  assert.equal(await auth.getToken(), "access 1");
});

test("an address is changed at once, or when it is confirmed", async (context) => {
  const { auth, open } = scene(context, session(1, 3600), [202, { status: "confirmation_required" }], [200, { status: "changed" }]);
  await auth.signIn("a@example.com", "secret");
  assert.equal(await auth.changeEmail("b@example.com", "secret"), false);
  assert.equal(open().user?.email, "a@example.com");
  assert.equal(await auth.changeEmail("b@example.com"), true);
  assert.equal(open().user?.email, "b@example.com");
});

test("changes are made with a fresh token, and need a sign-in", async (context) => {
  const { auth, requests } = scene(context, session(1, 60), session(2, 3600), [204, null]);
  await assert.rejects(auth.signOutOthers(), { code: "not_signed_in" });
  await auth.signIn("a@example.com", "secret");
  await auth.signOutOthers();
  assert.deepEqual(requests.slice(1), [["/api/v1/auth/refresh", { refresh_token: "refresh 1" }], ["/api/v1/auth/logout", { scope: "others" }]]);
});

test("a user who is read again is stored, unless somebody else signed in meanwhile", async (context) => {
  let answer = (_: Answer) => {};
  const late = new Promise<Answer>((resolve) => (answer = resolve));
  const other: Answer = [200, { ...(session(3, 3600)[1] as object), user: { id: "v", email: "v@example.com" } }];
  const { auth, open } = scene(context, session(1, 3600), [200, user("a@example.com", "Ada L.")], late, other);
  await auth.signIn("a@example.com", "secret");
  assert.equal((await auth.reloadUser()).name, "Ada L.");
  assert.equal(open().user?.name, "Ada L.");
  const reading = auth.reloadUser();
  await Promise.resolve(); // the request is on its way
  await auth.signIn("v@example.com", "secret");
  answer([200, user("a@example.com")]);
  await reading;
  assert.equal(open().user?.id, "v");
});

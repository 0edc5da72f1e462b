import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { createAuth } from "../src/auth.js";

type Answer = [status: number, body: unknown];
type Answers = (Answer | Error | Promise<Answer>)[];

/** The server's answers in their order, and the requests it got. */
function scene(context: TestContext, ...answers: Answers) {
  const requests: [path: string, body: unknown][] = [];
  context.mock.method(globalThis, "fetch", async (url: string, init: RequestInit) => {
    requests.push([new URL(url).pathname, JSON.parse(init.body as string)]);
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

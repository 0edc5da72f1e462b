import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { onWake, tabStorage } from "../src/environment.js";

/** A page: the globals that only browsers have. */
function inPage(context: TestContext, fields: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(fields)) Object.defineProperty(globalThis, name, { value, configurable: true });
  context.after(() => Object.keys(fields).forEach((name) => delete (globalThis as Record<string, unknown>)[name]));
}

test("the network, a visible page and a page from the browser's cache wake the connection, until it is stopped", (context) => {
  const page = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  inPage(context, { addEventListener: page.addEventListener.bind(page), document });
  let woken = 0;
  const stop = onWake(() => (woken += 1));
  const tell = () => {
    page.dispatchEvent(new Event("online"));
    page.dispatchEvent(new Event("offline"));
    page.dispatchEvent(new Event("pageshow"));
    document.dispatchEvent(new Event("visibilitychange"));
  };
  tell();
  assert.equal(woken, 3, "a page that is hidden stays asleep");
  document.visibilityState = "visible";
  tell();
  assert.equal(woken, 7);
  stop();
  tell();
  assert.equal(woken, 7);
});

test("a browser that forbids the storage is one without", (context) => {
  Object.defineProperty(globalThis, "sessionStorage", { configurable: true, get: () => assert.fail("SecurityError") });
  context.after(() => delete (globalThis as Record<string, unknown>)["sessionStorage"]);
  assert.equal(tabStorage(), null);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { ChatError } from "../src/errors.js";
import { pauseBefore } from "../src/policy.js";

const pause = (code: number, failures = 1, random = 0.5, error: ChatError | null = null) => pauseBefore({ code, error }, failures, random);

test("codes from 4500 to 4599 forbid a reconnect", () => {
  for (const code of [4500, 4501, 4503, 4599]) assert.equal(pause(code), null);
  for (const code of [1000, 1001, 1006, 1009, 1012, 1013, 4000, 4001, 4002, 4003, 4004]) assert.notEqual(pause(code), null);
});

test("an unknown cursor is dropped, although its close code forbids a reconnect", () => {
  assert.notEqual(pause(4501, 1, 0.5, new ChatError("invalid_cursor", "")), null);
});

test("a fresh token and another instance need no pause, unless they fail again", () => {
  assert.equal(pause(4001), 0);
  assert.equal(pause(4002), 0);
  assert.ok(pause(4001, 2)! > 0);
});

test("the pause grows to half a minute, and is never below half of its step", () => {
  const pauses = [1, 2, 3, 4, 5, 6, 7, 20].map((failures) => pause(1006, failures, 1)!);
  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  assert.equal(pause(1006, 3, 0), 1000);
});

test("the server's retry_after is respected", () => {
  assert.ok(pause(1013, 1, 0, new ChatError("overloaded", "", { retryable: true, retryAfter: 7 }))! >= 7000);
});

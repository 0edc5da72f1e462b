// Every error code that people meet has a sentence in Russian. A new one in docs/errors.md needs one, or a place among OF_PROGRAMS.
import { ChatError, type ChatErrorCode } from "@ai-chat-platform/client";
import { beforeAll, expect, test, vi } from "vitest";
import documented from "../../docs/errors.md?raw";
import wireTypes from "../../clients/js/src/errors.ts?raw";

beforeAll(() => {
  vi.stubGlobal("navigator", { languages: ["ru-RU"] });
  vi.stubGlobal("document", { documentElement: { dataset: {} } });
});
const load = async () => ({ ...(await import("../src/platform/problem_words")), ...(await import("../src/platform/language")) });

const codes = [...documented.split("## WebSocket")[0]!.matchAll(/^\| `(\w+)` \| \d/gm)].map(([, code]) => code as ChatErrorCode);
const own = [...wireTypes.matchAll(/\| "(\w+)"/g)].map(([, code]) => code as ChatErrorCode);

/** Errors of a program that uses the API wrongly. The console shows the server's sentence. */
const OF_PROGRAMS = ["id_conflict", "invalid_cursor", "method_not_allowed"];

test("each documented code, and each of the client's own, has a Russian sentence", async () => {
  const { RUSSIAN } = await load();
  expect(codes.length).toBeGreaterThan(30);
  expect(own).toEqual(["network", "closed", "not_signed_in"]);
  expect(Object.keys(RUSSIAN).sort()).toEqual([...codes, ...own].filter((code) => !OF_PROGRAMS.includes(code)).sort());
  for (const sentence of Object.values(RUSSIAN)) expect(sentence).toMatch(/^[А-ЯЁ].*[.!?]$/);
});

test("English is the server's sentence, Russian that of the code, and a form's own goes first", async () => {
  const { sentence, language } = await load();
  const error = new ChatError("busy", "A turn is running.");
  language.value = "en";
  expect(sentence(error)).toBe("A turn is running.");
  language.value = "ru";
  expect(sentence(error)).toMatch(/^Агент сейчас отвечает/);
  expect(sentence(error, { busy: "Своё." })).toBe("Своё.");
});

test("a wait is said in both languages", async () => {
  const { sentence, language } = await load();
  const error = new ChatError("rate_limited", "Too many requests.", { retryable: true, retryAfter: 41.2 });
  language.value = "en";
  expect(sentence(error)).toBe("Too many attempts. Try again in 42 seconds.");
  language.value = "ru";
  expect(sentence(error)).toBe("Слишком много попыток. Попробуйте через 42 секунды.");
});

test("what a password lacks is said without the alphabets that Auth lists", async () => {
  const { sentence, language } = await load();
  const detail = "Password should be at least 8 characters. Password should contain at least one character of each: abcdef, 0123456789.";
  language.value = "en";
  expect(sentence(new ChatError("weak_password", detail))).toBe("It needs at least 8 characters. It needs letters and digits.");
  expect(sentence(new ChatError("weak_password", "Known from a breach."))).toBe("Known from a breach.");
  language.value = "ru";
  expect(sentence(new ChatError("weak_password", "The new password must differ from the old one."))).toBe("Новый пароль должен отличаться от старого.");
  expect(sentence(new ChatError("weak_password", "Known from a breach."))).toBe("Выберите пароль надёжнее.");
});

test("what is wrong with a field is found by its pointer", async () => {
  const { fieldSentences, language } = await load();
  const errors = [{ pointer: "/expires_at", detail: "is past" }, { pointer: "/email", detail: "String should match pattern" }];
  const error = new ChatError("invalid_request", "The body is not valid.", { errors });
  language.value = "en";
  expect(fieldSentences(error)).toEqual({ expires_at: "is past", email: "Enter an address such as name@example.com." });
  language.value = "ru";
  expect(fieldSentences(error).expires_at).toBe("Так не годится.");
});

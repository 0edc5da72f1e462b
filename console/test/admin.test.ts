// Operators: the form of a user's limits, and the audit in words.
import type { PlanFields } from "@ai-chat-platform/client/wire";
import { beforeAll, beforeEach, expect, test, vi } from "vitest";
import { amountOf, changeOf, type LimitsText, problemsOf, textOf } from "../src/admin/limits";

const load = async () => ({ ...(await import("../src/admin/action_text")), ...(await import("../src/admin/period")), ...(await import("../src/platform/language")) });

const LIMITS: PlanFields = { budget: "0.5", period: "30d", tokens_per_minute: null, requests_per_minute: 60, models: ["gpt-4"] };
const typed = (change: Partial<LimitsText>): LimitsText => ({ ...textOf(LIMITS), ...change });

beforeAll(() => {
  vi.stubGlobal("navigator", { languages: ["en"] });
  vi.stubGlobal("document", { documentElement: { dataset: {} } });
});
beforeEach(async () => (await load()).chooseLanguage("en"));

test("limits that nobody touched change nothing", () => {
  expect(changeOf(textOf(LIMITS), LIMITS)).toEqual({});
  expect(changeOf(typed({ budget: "0.50" }), LIMITS)).toEqual({});
});

test("only what differs is sent, and an empty field removes its limit", () => {
  expect(changeOf(typed({ budget: "20" }), LIMITS)).toEqual({ budget: "20" });
  expect(changeOf(typed({ budget: "", period: "", requests: "" }), LIMITS)).toEqual({ budget: null, period: null, requests_per_minute: null });
  expect(changeOf(typed({ tokens: "90 000", models: "gpt-4\ngpt-5\n\ngpt-4" }), LIMITS)).toEqual({ tokens_per_minute: 90000, models: ["gpt-4", "gpt-5"] });
  expect(changeOf(typed({ models: "" }), LIMITS)).toEqual({ models: [] });
});

test("an amount is taken as people write it", () => {
  for (const [text, amount] of [["12,50", "12.50"], ["$20", "20"], ["1 250,5", "1250.5"], ["1\u00a0250", "1250"], ["0", "0"]]) expect(amountOf(text!)).toBe(amount);
});

test.each<[Partial<LimitsText>, object]>([
  [{ budget: "-1" }, { budget: "amount" }],
  [{ budget: "1.2.3" }, { budget: "amount" }],
  [{ budget: "1,000" }, { budget: "amount" }],
  [{ budget: "1,000,000" }, { budget: "amount" }],
  [{ budget: "1e3" }, { budget: "amount" }],
  [{ budget: "1234567890.123456" }, { budget: "digits" }],
  [{ period: "2mo" }, { period: "period" }],
  [{ period: "0d" }, { period: "period" }],
  [{ tokens: "0", requests: "2147483648" }, { tokens: "count", requests: "count" }],
  [{ tokens: "1.5" }, { tokens: "count" }],
  [{ models: "gpt-5" }, { models: "modelMissing" }],
  [{ models: `gpt-4\n${"m".repeat(201)}` }, { models: "models" }],
  [{ budget: "", period: "", tokens: "2147483647", requests: "1", models: "" }, {}],
  [{ budget: "123456789012345", period: "1mo" }, {}],
])("what the server would refuse is said: %j", (change, wrong) => {
  expect(problemsOf(typed(change), "gpt-4")).toEqual(wrong);
});

test("periods are said as LiteLLM begins them", async () => {
  const { periodText, chooseLanguage } = await load();
  expect(["1d", "7d", "30d", "1mo", "12h", null].map(periodText)).toEqual([
    "Every day, at midnight UTC", "Every week, on Monday", "Every month, on the 1st", "Every month, on the 1st", "Every 12 hours", "Never",
  ]);
  chooseLanguage("ru");
  expect(["2d", "5h", "21m"].map(periodText)).toEqual(["Раз в 2 дня", "Раз в 5 часов", "Раз в 21 минуту"]);
});

test("an entry of the audit is said in words, an unknown one as it is", async () => {
  const { actionName, detailsText } = await load();
  expect(detailsText({ budget: "20", period: "30d" })).toBe("budget: $20.00; period: Every month, on the 1st");
  expect(detailsText({ budget: null, tokens_per_minute: null, models: [] })).toBe("budget: no limit; tokens a minute: no limit; models: all");
  expect(detailsText({ reason: null })).toBe("");
  expect(detailsText({ at_once: true, colour: { red: 1 } })).toBe('at once: yes; colour: {"red":1}');
  expect([actionName("block"), actionName("dance")]).toEqual(["Block", "dance"]);
});

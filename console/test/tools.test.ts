// What the agent's tools do, in words.
import type { ToolCall } from "@ai-chat-platform/client";
import { expect, test, vi } from "vitest";

vi.stubGlobal("navigator", { languages: ["en"] });
vi.stubGlobal("document", { documentElement: { dataset: {} } });
const { deedOf } = await import("../src/talk/tools");

const call = (name: string, given: unknown): ToolCall => ({
  id: "1",
  name,
  arguments: typeof given === "string" ? given : JSON.stringify(given),
  truncated: false,
  status: "success",
});

test.each([
  ["memory_insert", { label: "human", new_string: "Her name is Ada.\n" }, "Remembered", "Her name is Ada."],
  ["core_memory_append", { label: "human", content: "Likes tea" }, "Remembered", "Likes tea"],
  ["archival_memory_insert", { content: "Likes tea" }, "Remembered", "Likes tea"],
  ["memory_replace", { label: "human", old_string: "tea", new_string: "coffee" }, "Corrected in memory", "coffee"],
  ["memory_replace", { label: "human", old_string: "tea", new_string: "" }, "Forgot", "tea"],
  ["archival_memory_search", { query: "hills" }, "Searched its memory", "hills"],
  ["conversation_search", { query: "hills" }, "Searched the conversation", "hills"],
  ["memory_insert", { new_string: { nested: 1 } }, "Remembered", ""],
])("%s with %j", (name, given, what, about) => expect(deedOf(call(name, given))).toMatchObject({ what, about, isMemory: true }));

test("another tool is told by its name", () => {
  expect(deedOf(call("web_search", { q: "hills" }))).toMatchObject({ what: "Used the tool web_search", about: "", isMemory: false });
});

test.each(['{"label": "human", "new_st', "[1]", "null", ""])("arguments that are cut or no object stay what they are: %j", (text) => {
  expect(deedOf(call("memory_insert", text))).toMatchObject({ what: "Remembered", about: "", details: text });
});

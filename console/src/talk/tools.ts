// What the agent's tools do, in words. Tools of the memory are told as what they do to it; others by their name.
import type { ToolCall } from "@ai-chat-platform/client";
import { words } from "./words";

export interface Deed {
  /** "Remembered", "Searched the memory". */
  what: string;
  /** The text that it is about; empty if there is none. */
  about: string;
  /** The arguments to be read: indented, if they are JSON. */
  details: string;
  isMemory: boolean;
}

type Arguments = Record<string, unknown>;

export function deedOf({ name, arguments: text }: ToolCall): Deed {
  const t = words();
  const given = argumentsOf(text);
  const details = given ? JSON.stringify(given, null, 2) : text;
  const say = (what: string, about: unknown, isMemory = true): Deed => ({ what, about: typeof about === "string" ? about.trim() : "", details, isMemory });
  const { new_string, new_str, content, new_content, new_memory, old_string, old_content, query } = given ?? {};
  switch (name) {
    case "memory_insert":
    case "core_memory_append":
    case "archival_memory_insert":
      return say(t.remembered, new_string ?? new_str ?? content);
    case "memory_replace":
    case "core_memory_replace": {
      const now = new_string ?? new_str ?? new_content;
      return now === "" ? say(t.forgot, old_string ?? old_content) : say(t.corrected, now);
    }
    case "memory_rethink":
    case "rethink_memory":
      return say(t.rewrote, new_memory);
    case "memory_apply_patch":
    case "memory":
      return say(t.changedMemory, new_string ?? new_str ?? given?.file_text ?? given?.insert_text);
    case "archival_memory_search":
      return say(t.searchedMemory, query);
    case "conversation_search":
      return say(t.searchedChat, query);
    default:
      return say(t.usedTool(name), "", false);
  }
}

function argumentsOf(text: string): Arguments | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Arguments) : null;
  } catch {
    return null; // cut, or not yet complete
  }
}

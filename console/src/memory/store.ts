// The agent's memory as it was read last, and what has changed since the reading before. It outlives the panel, so that a
// panel which is opened again shows what the agent changed in the meantime.
import type { AgentMemory, Block } from "@ai-chat-platform/client/wire";
import type { ChatError } from "@ai-chat-platform/client";
import { effect, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { get } from "../platform/api";
import { chat } from "../platform/conversation";
import { user } from "../platform/session";
import { changedBlocks, newPassages } from "./marks";

export const PAGE = 20; // passages
const SOON = 300; // milliseconds: events that come together cause one reading
const RETRY = 10; // seconds, where the server names no time
const WRITING_TOOLS = new Set(["memory_insert", "memory_replace", "archival_memory_insert"]);

export const memory = signal<AgentMemory | null>(null);
export const problem = signal<ChatError | null>(null);
export const isReading = signal(false);
/** Blocks that changed: their label, and the value before. */
export const changes = signal<ReadonlyMap<string, string>>(new Map());
/** Passages that the agent added. */
export const added = signal<ReadonlySet<string>>(new Set());

let owner: string | null = null;
let latest = 0;

// Nobody sees what the user before them had.
effect(() => {
  const id = user.value?.id ?? null;
  if (id === owner) return;
  owner = id;
  latest++;
  isReading.value = false;
  memory.value = problem.value = null;
  changes.value = new Map();
  added.value = new Set();
});

export function forgetChanges(): void {
  if (changes.value.size) changes.value = new Map();
  if (added.value.size) added.value = new Set();
}

/** Read the memory. `isOwn`: after a change by the user, which needs no mark. Resolves to what was read, even if another
 * reading that began later is to be shown; null: `problem` says why it could not be read. */
export async function readMemory({ isOwn = false } = {}): Promise<AgentMemory | null> {
  const mine = ++latest;
  isReading.value = true;
  let found: AgentMemory | null = null;
  try {
    found = await get<AgentMemory>("agent/memory", { limit: PAGE });
    if (mine !== latest) return found;
    if (memory.value && !isOwn) mark(memory.value, found);
    memory.value = found;
    problem.value = null;
  } catch (error) {
    if (mine === latest) problem.value = error as ChatError;
  }
  if (mine === latest) isReading.value = false;
  return found;
}

function mark(before: AgentMemory, now: AgentMemory): void {
  const changed = changedBlocks(before.blocks, now.blocks, changes.value);
  if (changed.size || changes.value.size) changes.value = changed;
  const fresh = newPassages(before.archival.data, now.archival.data);
  if (fresh.length) added.value = new Set([...added.value, ...fresh]);
}

/** Show what the server has answered to a change by the user. */
export function adoptBlock(block: Block): void {
  const found = memory.value;
  if (!found) return;
  memory.value = { ...found, blocks: found.blocks.map((other) => (other.label === block.label ? block : other)) };
  const rest = new Map(changes.value);
  if (rest.delete(block.label)) changes.value = rest;
}

/** Keep the memory up to date while something shows it: after each turn, and when a tool has changed it. */
export function useMemory(): void {
  const open = chat.value;
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const soon = (milliseconds = SOON) => {
      clearTimeout(timer);
      timer = setTimeout(() => void readMemory(), milliseconds);
    };
    void readMemory();
    const ends = open
      ? [
          open.on("turn.started", forgetChanges),
          open.on("tool.returned", ({ name }) => WRITING_TOOLS.has(name) && soon()),
          ...(["turn.completed", "turn.failed", "turn.cancelled", "agent.status", "history.deleted"] as const).map((type) => open.on(type, () => soon())),
        ]
      : [];
    const stopRetrying = problem.subscribe((error) => {
      if (error?.retryable) soon((error.retryAfter ?? RETRY) * 1000);
    });
    return () => {
      clearTimeout(timer);
      stopRetrying();
      latest++;
      isReading.value = false;
      for (const end of ends) end();
    };
  }, [open]);
}

// What differs between two readings of the memory, so that it can be marked.
import type { Block, Passage } from "@ai-chat-platform/client/wire";

type Value = Pick<Block, "label" | "value">;

/** The labels of blocks that changed, with the value before the first change since `known` was empty. */
export function changedBlocks(before: readonly Value[], now: readonly Value[], known: ReadonlyMap<string, string>): Map<string, string> {
  const changed = new Map(known);
  for (const { label, value } of now) {
    const old = before.find((block) => block.label === label)?.value ?? "";
    if (value !== old && !changed.has(label)) changed.set(label, old);
    if (changed.get(label) === value) changed.delete(label); // changed back
  }
  return changed;
}

/** The ids of passages that were added. Older ones that moved up to the first page are not new. */
export function newPassages(before: readonly Passage[], now: readonly Passage[]): string[] {
  const known = new Set(before.map(({ id }) => id));
  const oldest = before.at(-1)?.created_at ?? "";
  return now.filter(({ id, created_at }) => !known.has(id) && (created_at ?? "") >= oldest).map(({ id }) => id);
}

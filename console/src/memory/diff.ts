// What changed between two texts, in words: for showing a memory block's change where it happened.

export interface Part {
  kind: "same" | "added" | "removed";
  text: string;
}

/** Tables of this many cells are computed; above, everything between the common ends counts as replaced. */
const MOST_CELLS = 4_000_000;

/** The parts of `after` that stayed or were added, and those of `before` that were removed, in their order. */
export function wordDiff(before: string, after: string): Part[] {
  const [old, now] = [tokens(before), tokens(after)];
  let start = 0;
  while (start < old.length && start < now.length && old[start] === now[start]) start++;
  let end = 0;
  while (end < old.length - start && end < now.length - start && old.at(-1 - end) === now.at(-1 - end)) end++;
  const parts: Part[] = [];
  push(parts, "same", now.slice(0, start));
  middle(parts, old.slice(start, old.length - end), now.slice(start, now.length - end));
  push(parts, "same", end ? now.slice(-end) : []);
  return parts;
}

/** Words, and what is between them. */
const tokens = (text: string): string[] => text.match(/\s+|[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu) ?? [];

/** By the longest common subsequence. */
function middle(parts: Part[], old: readonly string[], now: readonly string[]): void {
  if (old.length * now.length > MOST_CELLS) {
    push(parts, "removed", old);
    push(parts, "added", now);
    return;
  }
  const width = now.length + 1;
  const longest = new Uint32Array((old.length + 1) * width); // from each pair of places to the ends
  for (let i = old.length - 1; i >= 0; i--)
    for (let j = now.length - 1; j >= 0; j--)
      longest[i * width + j] = old[i] === now[j] ? longest[(i + 1) * width + j + 1]! + 1 : Math.max(longest[(i + 1) * width + j]!, longest[i * width + j + 1]!);
  let [i, j] = [0, 0];
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      push(parts, "same", [now[j]!]);
      i++;
      j++;
    } else if (j >= now.length || (i < old.length && longest[(i + 1) * width + j]! >= longest[i * width + j + 1]!)) push(parts, "removed", [old[i++]!]);
    else push(parts, "added", [now[j++]!]);
  }
}

function push(parts: Part[], kind: Part["kind"], words: readonly string[]): void {
  if (!words.length) return;
  const last = parts.at(-1);
  if (last?.kind === kind) last.text += words.join("");
  else parts.push({ kind, text: words.join("") });
}

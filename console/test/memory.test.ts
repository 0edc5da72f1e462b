// What changed in the memory between two readings, and in a block, in words.
import { expect, test } from "vitest";
import { type Part, wordDiff } from "../src/memory/diff";
import { changedBlocks, newPassages } from "../src/memory/marks";

const marked = (parts: readonly Part[]) => parts.map(({ kind, text }) => ({ same: text, added: `[+${text}]`, removed: `[-${text}]` })[kind]).join("");
const diff = (before: string, after: string) => marked(wordDiff(before, after));

test("an appended line is added, the rest stays", () => {
  expect(diff("Name: Ada", "Name: Ada\nCat: Tom")).toBe("Name: Ada[+\nCat: Tom]");
});

test("a replaced word is removed and added in its place", () => {
  expect(diff("Lives in Paris now", "Lives in Tbilisi now")).toBe("Lives in [-Paris][+Tbilisi] now");
});

test("several changes are found one by one", () => {
  expect(diff("a b c d e", "a x c e f")).toBe("a [-b][+x] c [-d ]e[+ f]");
});

test("nothing before, nothing after, no change", () => {
  expect(diff("", "new")).toBe("[+new]");
  expect(diff("old", "")).toBe("[-old]");
  expect(wordDiff("same", "same")).toEqual([{ kind: "same", text: "same" }]);
  expect(wordDiff("", "")).toEqual([]);
});

test("words of other scripts are words", () => {
  expect(diff("Кошка: Мурка", "Кошка: Барсик")).toBe("Кошка: [-Мурка][+Барсик]");
  expect(diff("שלום עולם", "שלום לכולם")).toBe("שלום [-עולם][+לכולם]");
});

test("the parts give both texts again", () => {
  const random = (seed: number) => Array.from({ length: 60 }, (_, i) => "abc "[Math.floor(Math.abs(Math.sin(seed * 100 + i)) * 4)]).join("");
  for (let seed = 0; seed < 40; seed++) {
    const [before, after] = [random(seed), random(seed + 0.5)];
    const parts = wordDiff(before, after);
    expect(parts.filter(({ kind }) => kind !== "added").map(({ text }) => text).sort().join("").length).toBe(before.length);
    expect(parts.filter(({ kind }) => kind !== "removed").map(({ text }) => text).join("")).toBe(after);
  }
});

test("of texts too long to compare the middle is replaced as a whole", () => {
  const [before, after] = [1, 2].map((seed) => `start ${Array.from({ length: 3000 }, (_, i) => `w${i * seed + seed}`).join(" ")} end`) as [string, string];
  expect(wordDiff(before, after).map(({ kind }) => kind)).toEqual(["same", "removed", "added", "same"]);
});

const blocks = (value: string) => [{ label: "human", value }, { label: "persona", value: "kind" }];

test("a block that changed is marked with its value before", () => {
  expect([...changedBlocks(blocks("a"), blocks("a b"), new Map())]).toEqual([["human", "a"]]);
});

test("a second change in the same turn is marked against the value before the first", () => {
  expect([...changedBlocks(blocks("a b"), blocks("a b c"), new Map([["human", "a"]]))]).toEqual([["human", "a"]]);
});

test("a block that changed back is not marked", () => {
  expect(changedBlocks(blocks("a b"), blocks("a"), new Map([["human", "a"]])).size).toBe(0);
});

test("passages that were added are new, those that moved up from the next page are not", () => {
  const passage = (id: string, created_at: string) => ({ id, text: id, created_at });
  const before = [passage("c", "2026-11-03T00:00:00Z"), passage("b", "2026-11-02T00:00:00Z")];
  expect(newPassages(before, [passage("d", "2026-11-04T00:00:00Z"), ...before])).toEqual(["d"]);
  expect(newPassages(before, [before[0]!, passage("a", "2026-11-01T00:00:00Z")])).toEqual([]);
  expect(newPassages([], [passage("a", "2026-11-01T00:00:00Z")])).toEqual(["a"]);
});

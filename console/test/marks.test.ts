// The words of a search, marked where the server finds them.
import { expect, test } from "vitest";
import { excerptOf, marked, patternOf } from "../src/talk/marks";

const words = (query: string, text: string) => marked(text, patternOf(query)).filter(({ isMarked }) => isMarked).map(({ text }) => text);

test.each([
  ["green te", "Green tea, evergreen trees", ["Green", "te"]],
  ["кот", "Кота зовут Том; скот", ["Кот"]],
  ["елка", "Ёлка и елка", ["Ёлка", "елка"]],
  ["a.*b", "a.*b ab", ["a", "b", "a"]],
  ["42", "42 and 142 and 420", ["42", "42"]],
  ["tom tomato", "Tomato, Tom", ["Tomato", "Tom"]],
])("%j in %j", (query, text, found) => expect(words(query, text)).toEqual(found));

test.each(["", "  ", "%&|!'\"", "…", "🙂"])("%j has no words", (query) => expect(patternOf(query)).toBeNull());

test("the parts are the text", () => {
  const text = "Tom and tomatoes";
  expect(marked(text, patternOf("tom")).map((part) => part.text).join("")).toBe(text);
});

test("an excerpt shows the first match, and where it was cut", () => {
  const text = `${"before ".repeat(100)}needle${" after".repeat(100)}`;
  const excerpt = excerptOf(text, patternOf("needle"));
  expect(excerpt).toMatch(/^…before .*needle after .*…$/);
  expect(excerpt.length).toBeLessThan(250);
});

test("an excerpt of a short text is the text on one line", () => expect(excerptOf("a\n\nneedle", patternOf("needle"))).toBe("a needle"));

test("a word without an end does not hide the match", () => {
  expect(excerptOf(`${"x".repeat(500)} needle`, patternOf("needle"))).toContain("needle");
});

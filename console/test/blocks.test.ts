// Markdown, read block by block.
import { expect, test } from "vitest";
import { type Blocks, decoded, grow, levels, parse, safeAddress } from "../src/talk/blocks";

const REPLY = `# Title

A paragraph with **bold**, \`code <b>\`,
and a second line.

- one
- two

  a paragraph of two
    - deeper
1. first
   \`\`\`python
   print("a")

   print("b")
   \`\`\`
2. second

> quoted
lazily

| a | b |
|---|--:|
| 1 | 2 |

\`\`\`ts
const a = 1;

# no title
\`\`\`

    indented

    code

$$
a_1 * b_1
$$

<div>html</div>

---
The end: $x_1$ \\(y\\).`;

const plain = (blocks: Blocks) => JSON.parse(JSON.stringify(blocks.all)) as unknown;

test("a text that grows by a letter has at each moment the blocks of that text", () => {
  let blocks = parse("");
  for (let length = 1; length <= REPLY.length; length++) {
    const text = REPLY.slice(0, length);
    blocks = grow(blocks, text);
    expect(plain(blocks), text).toEqual(plain(parse(text)));
  }
});

test("blocks before the last stay the same objects while the text grows", () => {
  const before = grow(parse("One.\n\nTwo."), "One.\n\nTwo. And");
  const after = grow(before, "One.\n\nTwo. And more.\n\nThree.");
  expect(after.all[0]).toBe(before.all[0]);
  expect(after.all).toHaveLength(3);
});

test("only the text behind the settled blocks is read again", () => {
  const paragraphs = Array.from({ length: 50 }, (_, i) => `Paragraph ${i}.`).join("\n\n");
  const blocks = grow(parse(paragraphs), `${paragraphs} More.`);
  expect(blocks.settled).toHaveLength(48);
  expect(blocks.settledText.length).toBeGreaterThan(paragraphs.length - 40);
});

test("a text that was replaced is read anew", () => {
  expect(plain(grow(parse("One.\n\nTwo."), "Other."))).toEqual(plain(parse("Other.")));
});

test("lines of any system are lines", () => {
  expect(plain(parse("a\r\n\r\nb\rc"))).toEqual(plain(parse("a\n\nb\nc")));
});

test.each(["$a_1 + b_1$", "$$a*b*c$$", "\\(a_1\\)", "\\[a * b\\]", "$$\na_1\n$$"])("mathematics stays text: %s", (text) => {
  const [block] = parse(text).all;
  const found = block!.type === "maths" ? block : (block as { tokens: unknown[] }).tokens[0];
  expect(found).toMatchObject({ type: "maths", text });
});

test.each(["It costs $5 and then $10.", "US$ 5 and $ 6", "a $ b"])("prices are no mathematics: %s", (text) => {
  expect(JSON.stringify(parse(text).all)).not.toContain('"maths"');
});

test.each([">", "> ", "- "])("thousands of %j inside each other are text", (mark) => {
  const text = `a\n\n${mark.repeat(20_000)}b`;
  expect(parse(text).all).toMatchObject([{ type: "text", text }]);
});

test("headings leave out no level", () => {
  const { all } = parse("### a\n\n##### b\n\n### c\n\n# d");
  expect([...levels(all).values()]).toEqual([2, 3, 2, 2]);
});

test.each([
  "javascript:alert(1)",
  "JaVaScRiPt:alert(1)",
  " javascript:alert(1)",
  "java\nscript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  "vbscript:x",
  "file:///etc/passwd",
  "blob:http://a/b",
  "#/account",
  "/api/v1/user",
  "//evil.example",
  "x",
  "",
])("no link leads to %j", (address) => expect(safeAddress(address)).toBeNull());

test.each(["https://example.com/a?b=c#d", "http://example.com/", "mailto:ada@example.com"])("a link leads to %s", (address) =>
  expect(safeAddress(address)).toBe(address),
);

test("entities are characters, unknown ones stay", () => {
  expect(decoded("a &lt;b&gt; &amp;amp; &#39;&#x41; &nope; &#0; &constructor; AT&T")).toBe("a <b> &amp; 'A &nope; &#0; &constructor; AT&T");
});

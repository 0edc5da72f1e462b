// Markdown as blocks. A reply that is being written is read from its last block on, so that a long one costs no more per
// word than a short one. What comes out are tokens, which markdown.tsx turns into elements: no HTML is ever made.
import { Marked, type Token, type Tokens } from "marked";

export type Block = Token;
export interface Maths extends Tokens.Generic {
  type: "maths";
  text: string;
}

export interface Blocks {
  readonly all: readonly Block[];
  /** Those that further text cannot change. They stay the same objects. */
  readonly settled: readonly Block[];
  /** As far as `settled` goes. */
  readonly settledText: string;
}

/** Blocks at the end that further text may change: in "1. one\n2" the last one will become part of the list before it. */
const OPEN = 2;
const NONE: Blocks = { all: [], settled: [], settledText: "" };

// Mathematics stays as it was written: Markdown would take its backslashes, stars and underscores.
const INLINE = /^(?:\\\([^\n]+?\\\)|\$\$[^$\n]+\$\$|\$(?![\s$\d])[^$\n]*[^\s$\\]\$(?![\w$]))/;
const BLOCK = /^(?:\\\[[\s\S]+?\\\]|\$\$[\s\S]+?\$\$)[ \t]*(?:\n|$)/;

const marked = new Marked({
  gfm: true,
  breaks: true,
  tokenizer: { lheading: () => undefined }, // "text\n-" is the beginning of a list more often than a heading
  extensions: [
    { name: "maths", level: "inline", start: (text) => text.search(/\\\(|\$/), tokenizer: (text) => maths(INLINE, text) },
    { name: "maths", level: "block", start: (text) => text.search(/(?:^|\n)(?:\\\[|\$\$)/), tokenizer: (text) => maths(BLOCK, text) },
  ],
});

function maths(pattern: RegExp, text: string): Maths | undefined {
  const raw = pattern.exec(text)?.[0];
  return raw === undefined ? undefined : { type: "maths", raw, text: raw.trim() };
}

/** The blocks of a complete text. */
export const parse = (text: string): Blocks => grow(NONE, text);

/** The blocks of a text that has grown since `before`. */
export function grow(before: Blocks, given: string): Blocks {
  const text = given.replace(/\r\n?/g, "\n");
  if (!text.startsWith(before.settledText)) return grow(NONE, text);
  const rest = text.slice(before.settledText.length);
  const read = blocksOf(rest);
  const shown = read.filter(isShown).map((block, i) => same(before.all[before.settled.length + i], block));
  const all = [...before.settled, ...shown];
  const settling = shown.length - OPEN;
  const raw = settling > 0 ? rawOf(read, settling) : "";
  if (!raw || !rest.startsWith(raw)) return { ...before, all };
  return { all, settled: all.slice(0, -OPEN), settledText: before.settledText + raw };
}

/** What was read again and has not changed is what it was, so that it need not be shown again. */
const same = (before: Block | undefined, block: Block) => (before?.type === block.type && before.raw === block.raw ? before : block);

/** The text of the first `number` blocks that are shown. */
function rawOf(blocks: readonly Block[], number: number): string {
  let left = number;
  const end = blocks.findIndex((block) => isShown(block) && left-- === 0);
  return blocks.slice(0, end).map(({ raw }) => raw).join("");
}

const isShown = ({ type }: Block) => type !== "space";

/** Quotations or lists inside each other deeper than anyone means: the time to read them grows with the square. */
const TOO_DEEP = /^[ \t]*(?:>[ \t]?|[-*+][ \t]+){30}/m;

function blocksOf(text: string): Block[] {
  const plain = [{ type: "text", raw: text, text }];
  if (TOO_DEEP.test(text)) return plain;
  try {
    return marked.lexer(text);
  } catch {
    return plain;
  }
}

/** The level of each heading in a page whose own title has level 1: no level is left out. */
export function levels(blocks: readonly Block[]): Map<Block, number> {
  const found = new Map<Block, number>();
  const open: number[] = [];
  for (const block of blocks) {
    if (block.type !== "heading") continue;
    const { depth } = block as Tokens.Heading;
    while (open.length && open.at(-1)! >= depth) open.pop();
    open.push(depth);
    found.set(block, Math.min(open.length + 1, 6));
  }
  return found;
}

const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/** The address of a link that may be followed, else null. Relative ones mean nothing in a reply. */
export function safeAddress(given: string): string | null {
  try {
    const address = new URL(given);
    return SCHEMES.has(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

const ENTITIES: Record<string, string> = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", reg: "®", trade: "™", mdash: "—", ndash: "–",
  hellip: "…", laquo: "«", raquo: "»", larr: "←", rarr: "→", times: "×", middot: "·", bull: "•", deg: "°", euro: "€",
};

/** `&lt;` is "<" in a text. Names that are not in the list stay as they are. */
export const decoded = (text: string): string =>
  text.replace(/&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(\w{2,8}));/g, (whole, decimal?: string, hex?: string, name?: string) => {
    if (name) return (Object.hasOwn(ENTITIES, name) && ENTITIES[name]) || whole;
    const point = decimal ? Number(decimal) : Number.parseInt(hex!, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });

// Markdown as elements. Whatever a model writes becomes text, or one of the elements below with a checked address.
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import type { Tokens } from "marked";
import { type Block, type Blocks, decoded, grow, levels, parse, safeAddress } from "./blocks";
import { Code } from "./code";
import { memo } from "./memo";
import { words } from "./words";

const DEEPEST = 24;

/** `isGrowing`: more text follows, and what is there stays. */
export function Markdown({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  const before = useRef<Blocks | null>(null);
  const blocks = isGrowing && before.current ? grow(before.current, text) : parse(text);
  before.current = blocks;
  const level = levels(blocks.all);
  return (
    <div class="markdown">
      {blocks.all.map((block, index) => (
        <TopBlock key={index} block={block} level={level.get(block)} isOpen={isGrowing && index === blocks.all.length - 1} />
      ))}
    </div>
  );
}

interface TopBlockProps {
  block: Block;
  level: number | undefined;
  /** It is being written. */
  isOpen: boolean;
}

const TopBlock = memo<TopBlockProps>(({ block, level, isOpen }) => <>{show(block, { depth: 0, level: level ?? 2, isOpen })}</>);

interface Place {
  depth: number;
  level: number;
  isOpen: boolean;
}

const inside = (blocks: readonly Block[] | undefined, { level, isOpen, depth }: Place): ComponentChildren =>
  depth >= DEEPEST
    ? blocks?.map(({ raw }) => raw).join("")
    : blocks?.map((block, index) => show(block, { level, depth: depth + 1, isOpen: isOpen && index === blocks.length - 1 }));

/** A block by itself, for tests. */
export const elementOf = (block: Block): ComponentChildren => show(block, { depth: 0, level: 2, isOpen: false });

function show(token: Block, place: Place): ComponentChildren {
  switch (token.type) {
    case "paragraph":
      return <p dir="auto">{inside(token.tokens, place)}</p>;
    case "text":
      return place.depth ? textOf(token as Tokens.Text, place) : <p dir="auto">{textOf(token as Tokens.Text, place)}</p>;
    case "escape":
      return token.text;
    case "strong":
      return <strong>{inside(token.tokens, place)}</strong>;
    case "em":
      return <em>{inside(token.tokens, place)}</em>;
    case "del":
      return <del>{inside(token.tokens, place)}</del>;
    case "codespan":
      return <code dir="ltr">{token.text}</code>;
    case "maths":
      return <span class="maths" dir="ltr">{token.text}</span>;
    case "br":
      return <br />;
    case "hr":
      return <hr />;
    case "link":
      return <Link href={token.href}>{inside(token.tokens, place)}</Link>;
    case "image":
      return <Link href={token.href}>{decoded(token.text) || words().picture}</Link>;
    case "checkbox":
      return <span role="img" aria-label={token.checked ? words().done : words().notDone}>{token.checked ? "☑ " : "☐ "}</span>;
    case "heading":
      return heading(token as Tokens.Heading, place);
    case "blockquote":
      return <blockquote dir="auto">{inside(token.tokens, place)}</blockquote>;
    case "list":
      return list(token as Tokens.List, place);
    case "code":
      return <Code text={token.text} language={token.lang ?? ""} isOpen={place.isOpen} />;
    case "table":
      return table(token as Tokens.Table, place);
    case "html":
      return /^<br\s*\/?>$/i.test(token.text.trim()) ? <br /> : place.depth ? token.text : <p dir="auto" class="raw">{token.text.trimEnd()}</p>;
    case "space":
    case "def":
      return null;
    default:
      return token.raw;
  }
}

const textOf = (token: Tokens.Text, place: Place) => (token.tokens ? inside(token.tokens, place) : decoded(token.text));

function Link({ href, children }: { href: string; children: ComponentChildren }) {
  const address = safeAddress(decoded(href));
  return address ? <a href={address} target="_blank" rel="noopener noreferrer nofollow">{children}</a> : <>{children}</>;
}

function heading(token: Tokens.Heading, place: Place) {
  const Heading = `h${place.depth ? 6 : place.level}` as "h2";
  return <Heading dir="auto" data-depth={token.depth}>{inside(token.tokens, place)}</Heading>;
}

function list({ ordered, start, items }: Tokens.List, place: Place) {
  const children = items.map((item, index) => (
    <li key={index} dir="auto" class={item.task ? "task" : undefined}>{inside(item.tokens, { ...place, isOpen: place.isOpen && index === items.length - 1 })}</li>
  ));
  return ordered ? <ol dir="auto" start={start || 1}>{children}</ol> : <ul dir="auto">{children}</ul>;
}

function table({ header, rows }: Tokens.Table, place: Place) {
  const cells = (row: readonly Tokens.TableCell[], Cell: "th" | "td") =>
    row.map(({ tokens, align }, index) => <Cell key={index} dir="auto" data-align={align ?? undefined}>{inside(tokens, place)}</Cell>);
  return (
    <div class="table" role="group" aria-label={words().table} tabIndex={0}>
      <table>
        <thead><tr>{cells(header, "th")}</tr></thead>
        <tbody>{rows.map((row, index) => <tr key={index}>{cells(row, "td")}</tr>)}</tbody>
      </table>
    </div>
  );
}

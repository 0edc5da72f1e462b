// Where the words of a search stand in a text: each word of the query begins a word, in any case, as the server finds them.

/** Matches the words of a query; null if it has none. */
export function patternOf(query: string): RegExp | null {
  const found = query.normalize().toLowerCase().replaceAll("ё", "е").match(/[\p{L}\p{N}\p{M}]+/gu);
  if (!found) return null;
  const longestFirst = [...new Set(found)].sort((a, b) => b.length - a.length);
  return new RegExp(`(?<![\\p{L}\\p{N}])(?:${longestFirst.join("|").replaceAll("е", "[её]")})`, "giu");
}

export interface Part {
  text: string;
  isMarked: boolean;
}

/** The text in parts, those that the pattern matches marked. */
export function marked(text: string, pattern: RegExp | null): Part[] {
  if (!pattern) return [{ text, isMarked: false }];
  const parts: Part[] = [];
  let end = 0;
  for (const { index, 0: match } of text.matchAll(pattern)) {
    if (index > end) parts.push({ text: text.slice(end, index), isMarked: false });
    parts.push({ text: match, isMarked: true });
    end = index + match.length;
  }
  if (end < text.length) parts.push({ text: text.slice(end), isMarked: false });
  return parts;
}

const BEFORE = 60;
const LONGEST = 240; // characters

/** The surroundings of the first match, on one line. */
export function excerptOf(text: string, pattern: RegExp | null): string {
  const line = text.replace(/\s+/g, " ").trim();
  const first = pattern ? Math.max(line.search(pattern), 0) : 0;
  const space = line.indexOf(" ", Math.max(first - BEFORE, 0));
  const from = first <= BEFORE ? 0 : space >= 0 && space < first ? space + 1 : first - BEFORE;
  const cut = line.slice(from, from + LONGEST);
  return `${from > 0 ? "…" : ""}${cut}${from + LONGEST < line.length ? "…" : ""}`;
}

const HIGHLIGHT = "found-words";

/** Mark the pattern's words in an element without changing it, where the browser can. Returns a function that ends it. */
export function highlightIn(element: Element, pattern: RegExp | null): () => void {
  if (!pattern || !("highlights" in CSS)) return () => {};
  const ranges: Range[] = [];
  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    for (const { index, 0: match } of node.nodeValue!.matchAll(pattern)) {
      const range = new Range();
      range.setStart(node, index);
      range.setEnd(node, index + match.length);
      ranges.push(range);
    }
  }
  CSS.highlights.set(HIGHLIGHT, new Highlight(...ranges));
  return () => void CSS.highlights.delete(HIGHLIGHT);
}

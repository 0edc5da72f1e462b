// Nothing that a model writes can run: Markdown becomes elements of a short list, with attributes of a short list.
import { isValidElement, type ComponentChildren, type VNode } from "preact";
import { expect, test, vi } from "vitest";
import { parse } from "../src/talk/blocks";
import ATTACKS from "./attacks.json";

vi.stubGlobal("navigator", { languages: ["en"] });
vi.stubGlobal("document", { documentElement: { dataset: {} } });
vi.stubGlobal("location", { origin: "https://chat.example.com" });
const { elementOf } = await import("../src/talk/markdown");

const ELEMENTS = new Set(["p", "strong", "em", "del", "code", "span", "br", "hr", "a", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "div", "table", "thead", "tbody", "tr", "th", "td"]);
const ATTRIBUTES = new Set(["dir", "class", "href", "target", "rel", "role", "aria-label", "start", "tabIndex", "data-depth", "data-align", "children"]);

/** All elements below, with those of components. */
function* elements(node: ComponentChildren): Generator<VNode<Record<string, unknown>>> {
  if (Array.isArray(node)) for (const child of node) yield* elements(child as ComponentChildren);
  if (!isValidElement(node)) return;
  const element = node as VNode<Record<string, unknown>>;
  if (typeof element.type !== "string" && element.type.name === "Link") yield* elements((element.type as (props: unknown) => ComponentChildren)(element.props));
  else {
    if (typeof element.type === "string") yield element;
    yield* elements(element.props.children as ComponentChildren);
  }
}

const all = (text: string) => [...elements(parse(text).all.map((block) => elementOf(block)))];

test.each(ATTACKS)("%s does nothing", (text) => {
  for (const { type, props } of all(text)) {
    expect(ELEMENTS).toContain(type);
    for (const name of Object.keys(props)) expect(ATTRIBUTES).toContain(name);
    if (props.href !== undefined) expect(String(props.href)).toMatch(/^(https?|mailto):/);
  }
});

test("a link opens elsewhere, and tells nothing of this page", () => {
  const [link] = all("[a](https://example.com/)").filter(({ type }) => type === "a");
  expect(link!.props).toMatchObject({ href: "https://example.com/", target: "_blank", rel: "noopener noreferrer nofollow" });
});

test("a picture is a link, which is not loaded", () => {
  const found = all("![a cat](https://example.com/cat.png)");
  expect(found.map(({ type }) => type)).toEqual(["p", "a"]);
  expect(found[1]!.props).toMatchObject({ href: "https://example.com/cat.png", children: "a cat" });
});

test("each block finds its own direction", () => {
  for (const { type, props } of all("# a\n\nb\n\n- c\n\n> d\n\n|e|\n|-|\n|f|").filter(({ type }) => /^(h\d|p|li|ul|blockquote|t[hd])$/.test(String(type)))) {
    expect(props.dir, String(type)).toBe("auto");
  }
});

// Colours for code, by highlight.js with the languages that models write most. Loaded with the first block of code.
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import csharp from "highlight.js/lib/languages/csharp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import dockerfile from "highlight.js/lib/languages/dockerfile";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import kotlin from "highlight.js/lib/languages/kotlin";
import markdown from "highlight.js/lib/languages/markdown";
import php from "highlight.js/lib/languages/php";
import python from "highlight.js/lib/languages/python";
import ruby from "highlight.js/lib/languages/ruby";
import rust from "highlight.js/lib/languages/rust";
import shell from "highlight.js/lib/languages/shell";
import sql from "highlight.js/lib/languages/sql";
import swift from "highlight.js/lib/languages/swift";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";

const LANGUAGES = {
  bash, c, cpp, csharp, css, diff, dockerfile, go, ini, java, javascript, json, kotlin, markdown, php, python, ruby, rust, shell,
  sql, swift, typescript, xml, yaml,
};
for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);
hljs.registerAliases(["toml"], { languageName: "ini" });

/** A part of the code: `kind` is the class of its colour, such as "hljs-keyword". */
export interface Piece {
  kind: string;
  text: string;
}

/** null: a language that is not known. */
export function highlight(code: string, language: string): Piece[] | null {
  if (!hljs.getLanguage(language)) return null;
  return pieces(hljs.highlight(code, { language, ignoreIllegals: true }).value);
}

const CHARACTERS: Record<string, string> = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/** What highlight.js writes as HTML, as pieces: `<span class="…">`, `</span>` and escaped text are all it knows. */
function pieces(html: string): Piece[] {
  const found: Piece[] = [];
  const open: string[] = [];
  for (const [whole, kind, text] of html.matchAll(/<span class="([\w -]*)">|<\/span>|([^<]+)/g)) {
    if (kind !== undefined) open.push(kind);
    else if (text === undefined) open.pop();
    else found.push({ kind: open.at(-1) ?? "", text: text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => CHARACTERS[entity] ?? whole) });
  }
  return found;
}

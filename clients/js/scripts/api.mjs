// Writes api.txt: the declarations of everything that apps can import, so that a change of the surface is seen in review.
// Run it after the build. `--check` writes nothing and exits with 1 if api.txt is not up to date.
import { readFileSync, writeFileSync } from "node:fs";

const PUBLIC = ["index", "chat", "state", "errors", "listeners", "tokens", "react", "auth", "rest", "ai"];
const root = new URL("..", import.meta.url);
const isPublic = (line) => !/^\s*(private|#)|^\s*\*|^\s*\/\*\*|^import |^export \{\};|^\/\//.test(line) && line.trim();
const text = PUBLIC.map((name) => {
  const lines = readFileSync(new URL(`dist/${name}.d.ts`, root), "utf8").split("\n").filter(isPublic);
  return `== ${name}\n${lines.join("\n")}\n`;
}).join("\n");

if (!process.argv.includes("--check")) writeFileSync(new URL("api.txt", root), text);
else if (readFileSync(new URL("api.txt", root), "utf8") !== text) {
  console.error("api.txt is not up to date: run `npm run api`, and say in CHANGELOG.md what changes for apps");
  process.exit(1);
}

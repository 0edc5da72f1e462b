// Writes dist/: a module and a declaration for each source file, and dist/browser/, the core for pages without a build.
// Prints what the core adds to a page, and exits with 1 if that is over the limit.
import { execFileSync } from "node:child_process";
import { cpSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const LIMIT = 7 * 1024; // bytes, gzipped
const LATER = ["./sse.js", "./tabs.js", "./commands.js"]; // modules that are loaded when they are needed
const root = fileURLToPath(new URL("..", import.meta.url));
const options = { absWorkingDir: root, bundle: true, minify: true, format: "esm", target: "es2022", logLevel: "warning" };

rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync(process.execPath, [`${root}node_modules/typescript/bin/tsc`, "-p", `${root}tsconfig.build.json`], { stdio: "inherit" });
cpSync(`${root}../../LICENSE`, `${root}LICENSE`);
await build({ ...options, entryPoints: { chat: "dist/index.js", auth: "dist/auth.js" }, outdir: "dist/browser", splitting: true });

const sizeOf = async (external) => {
  const { outputFiles } = await build({ ...options, entryPoints: ["dist/index.js"], write: false, external });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
};
const core = await sizeOf(LATER);
console.log(`core: ${core} bytes gzipped of ${LIMIT}; with event stream and tabs, which are loaded when needed: ${await sizeOf([])}`);
if (core > LIMIT) process.exit(1);

// Writes sw.js at each build: offline/sw.js with the names of the build's files, and a version that their contents decide.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { Plugin } from "vite";

const UNUSED_OFFLINE = /^licenses\.txt$|^icon-.*512|\.map$|^\./;

export function serviceWorker(root: URL): Plugin {
  return {
    name: "service-worker",
    apply: "build",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const built = Object.values(bundle).map((file) => [file.fileName, file.type === "chunk" ? file.code : file.source] as const);
        const open = readdirSync(new URL("public/", root)).map((name) => [name, readFileSync(new URL(`public/${name}`, root))] as const);
        const files = [...built, ...open].filter(([name]) => !UNUSED_OFFLINE.test(name)).sort(([one], [other]) => (one < other ? -1 : 1));
        const page = files.find(([name]) => name === "index.html");
        if (!page) throw new Error("the service worker needs the built page");
        const paths = files.map(([name]) => (name === "index.html" ? "/" : `/${name}`));
        const version = sha256(files.map(([name, content]) => `${name} ${sha256(content)}`).join("\n")).slice(0, 12);
        const source = readFileSync(new URL("offline/sw.js", root), "utf8")
          .replace("__FILES__", JSON.stringify(paths, null, 2))
          .replace("__PAGE_SHA256__", sha256(page[1]))
          .replace("__VERSION__", version);
        this.emitFile({ type: "asset", fileName: "sw.js", source });
      },
    },
  };
}

const sha256 = (content: string | Uint8Array) => createHash("sha256").update(content).digest("hex");

// Builds the console into the Python package. The built files are committed, so that a server needs no Node.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { serviceWorker } from "./offline/plugin.ts";

const CLIENT = fileURLToPath(new URL("../clients/js/src/", import.meta.url));
const SERVER = process.env.CHAT_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [serviceWorker(new URL("./", import.meta.url))],
  resolve: {
    alias: [
      { find: /^@ai-chat-platform\/client$/, replacement: `${CLIENT}index.ts` },
      { find: /^@ai-chat-platform\/client\/(.+)$/, replacement: `${CLIENT}$1.ts` },
    ],
  },
  build: {
    outDir: process.env.CONSOLE_OUT ?? "../server/console/files",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the policy of the page allows no data: addresses
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.txt" }, // of the packages whose code is in the build
  },
  server: { proxy: { "/api": { target: SERVER, ws: true }, "/auth": SERVER } }, // `npm run dev` beside `chat up`
});

// Keeps the files of one build, so that the console opens without a network and an open page never lacks a part of its own
// release. Nothing of the API is kept. The build fills in what the files are (offline/plugin.ts).
const FILES = [
  "/assets/account-CKR4a2OQ.js",
  "/assets/account-d1ybNMXz.css",
  "/assets/admin-BLjlooDx.js",
  "/assets/admin-DYGX_Z_J.css",
  "/assets/api-nwqiThrR.js",
  "/assets/bar-B7-78MeW.js",
  "/assets/bar-CX93CB83.css",
  "/assets/choosers-DOMqRylv.js",
  "/assets/clipboard-DEQAFjMZ.js",
  "/assets/commands-DP_MmL9P.js",
  "/assets/dialog-Bzh90CjJ.js",
  "/assets/errors-BXbDBkP2.js",
  "/assets/field-DTDeiFWB.js",
  "/assets/highlighter-BHGXvsqB.js",
  "/assets/index-BcUJ_DzF.css",
  "/assets/index-Ds-DQEa9.js",
  "/assets/inspector-DDEtnCzq.js",
  "/assets/inspector-DvCCJbss.css",
  "/assets/memory-BsTlFY7k.js",
  "/assets/panel-DM4fmumU.js",
  "/assets/panel-RbbgRxLn.css",
  "/assets/password-DGSs2zSa.js",
  "/assets/plot_canvas-Bd_gSPXe.js",
  "/assets/plot_canvas-CnsZ1jie.css",
  "/assets/resource-Dr6gyxb1.js",
  "/assets/rolldown-runtime-XKyaHtl9.js",
  "/assets/sse-BnZyfvau.js",
  "/assets/tabs-C4A_MnyD.js",
  "/assets/talk-CobNGeuj.js",
  "/assets/talk-D0zeENcZ.css",
  "/assets/usage-CsrHh6Px.js",
  "/assets/usage-DQab9LJ6.css",
  "/assets/user_agent-D9YK_nf9.js",
  "/assets/welcome-ChkrrT01.css",
  "/assets/welcome-D_r8py6z.js",
  "/icon-192.png",
  "/icon.svg",
  "/",
  "/manifest.webmanifest"
];
const PAGE_SHA256 = "3cdfc74e480ccd9d5295685a1cbf99c311c1d0cbdb8e8f0a4db0175122c4963c";
const CACHE = "console-2b5ba2a24010";
const NETWORK_TIMEOUT = 4000; // milliseconds for the network to answer, before the page is shown from here

self.addEventListener("install", (event) => event.waitUntil(fill()));

// It becomes active when no page of an older release is open any more, whose files can go then.
self.addEventListener("activate", (event) => event.waitUntil(removeOthers().then(() => self.clients.claim())));

self.addEventListener("fetch", (event) => {
  const { method, mode, url } = event.request;
  const { origin, pathname } = new URL(url);
  if (method !== "GET" || origin !== self.location.origin) return;
  if (mode === "navigate") {
    if (pathname === "/") event.respondWith(page(event.request));
  } else if (FILES.includes(pathname)) event.respondWith(stored(event.request, pathname));
});

/** While servers are replaced, the page may come from one release and this script from another: then it fails, and the
 * browser tries again later. */
async function fill() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((path) => new Request(path, { cache: path.startsWith("/assets/") ? "default" : "reload" })));
  const body = await (await cache.match("/")).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== PAGE_SHA256) {
    await caches.delete(CACHE);
    throw new Error("the page is of another release");
  }
}

async function removeOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith("console-") && name !== CACHE).map((name) => caches.delete(name)));
}

/** The newest page if the server answers soon, else that of this build. */
async function page(request) {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), NETWORK_TIMEOUT);
  try {
    const answer = await fetch(request, { signal: ending.signal });
    if (answer.ok) return answer;
  } catch {
    // no network, or a slow one
  } finally {
    clearTimeout(timer);
  }
  return stored(new Request("/"), "/");
}

async function stored(request, path) {
  const cache = await caches.open(CACHE);
  return (await cache.match(path)) ?? fetch(request);
}

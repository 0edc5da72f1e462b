// Keeps the files of one build, so that the console opens without a network and an open page never lacks a part of its own
// release. Nothing of the API is kept. The build fills in what the files are (offline/plugin.ts).
const FILES = __FILES__;
const PAGE_SHA256 = "__PAGE_SHA256__";
const CACHE = "console-__VERSION__";
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

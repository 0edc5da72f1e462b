// What lets pages of other origins use the project from a browser, as hosted Supabase does for every origin: Lite answers
// Auth's preflights without the headers that were asked for, and Auth's answers without any. There are no cookies.

const ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const EXPOSED_HEADERS = "X-Total-Count, Link, X-Supabase-Api-Version, Content-Range, Content-Location, Preference-Applied";
const PREFLIGHT_SECONDS = "86400";

const isPreflight = (request) => request.method === "OPTIONS" && request.headers.has("access-control-request-method");

function preflight(request) {
  const headers = new Headers({
    "access-control-allow-origin": "*",
    "access-control-allow-methods": ALLOWED_METHODS,
    "access-control-max-age": PREFLIGHT_SECONDS,
    vary: "Access-Control-Request-Headers",
  });
  const names = request.headers.get("access-control-request-headers");
  if (names) headers.set("access-control-allow-headers", names);
  return new Response(null, { status: 204, headers });
}

/** The request whose handler broke: an answer that a page can read, too. */
function broken(error) {
  console.error("request failed:", error);
  const body = { code: 500, error_code: "unexpected_failure", msg: "Unexpected failure, please check server logs" };
  return new Response(JSON.stringify(body), { status: 500, headers: { "content-type": "application/json" } });
}

/** Wraps a request handler so that every answer, an error too, may be read by pages of any origin. */
export function withCors(handle) {
  return async (request, peer) => {
    if (isPreflight(request)) return preflight(request);
    const response = await handle(request, peer).catch(broken);
    const headers = new Headers(response.headers);
    headers.set("access-control-allow-origin", "*");
    headers.set("access-control-expose-headers", EXPOSED_HEADERS);
    headers.delete("access-control-allow-credentials"); // browsers refuse it beside "*"
    return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
  };
}

// CORS for all origins, as in hosted Supabase. Lite answers Auth's preflights without the requested headers, and sends no
// CORS headers with Auth's responses. There are no cookies.

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

/** The response of a handler that failed; a page can read it, too. */
function broken(error) {
  console.error("request failed:", error);
  const body = { code: 500, error_code: "unexpected_failure", msg: "Unexpected failure, please check server logs" };
  return new Response(JSON.stringify(body), { status: 500, headers: { "content-type": "application/json" } });
}

/** Wraps a request handler so that pages of any origin can read every response, also an error. */
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

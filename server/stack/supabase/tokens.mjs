// Access tokens as hosted Supabase signs them: ES256, published as JWKS, with `iss` and the usual claims. Lite supports only
// HS256 with a shared secret, so tokens are translated in responses and back in requests.
import { SignJWT, exportJWK, generateKeyPair, importJWK, jwtVerify } from "jose";
import { readFile, writeFile } from "node:fs/promises";

const JWKS_PATH = "/auth/v1/.well-known/jwks.json";
const DISCOVERY_PATH = "/auth/v1/.well-known/openid-configuration";
const AUTH = "/auth/v1/";
const BEARER = /^Bearer (ey\S+)$/;
const SKEW_SECONDS = 30;

/** The signing key in `file`, generated on first use. */
async function signingKey(file) {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const key = { ...(await exportJWK(privateKey)), kid: crypto.randomUUID(), alg: "ES256", use: "sig" };
  await writeFile(file, JSON.stringify(key), { mode: 0o600 });
  return key;
}

/** A response that clients and proxies may cache for ten minutes. */
const published = (content) =>
  new Response(JSON.stringify(content), {
    headers: { "content-type": "application/json", "cache-control": "public, max-age=600" },
  });

const isJson = (response) => /^application\/json\b/.test(response.headers.get("content-type") ?? "");

/** Wraps Lite's request handler so that clients get ES256 tokens of `issuer`: in responses, and in the fragments of redirects
 * from links in e-mails and from other providers. `apiKey` is the publishable one; `signIn` says how and when the user of a
 * session signed in. */
export async function withHostedTokens(handle, { issuer, secret, keyFile, apiKey, signIn }) {
  const { d, ...publicKey } = await signingKey(keyFile);
  const [signer, verifier] = [await importJWK({ ...publicKey, d }, "ES256"), await importJWK(publicKey, "ES256")];
  const shared = new TextEncoder().encode(secret);
  const jwks = { keys: [{ ...publicKey, key_ops: ["verify"], ext: true }] };
  const discovery = { issuer, jwks_uri: `${issuer}/.well-known/jwks.json` };

  /** The claims of a token of this issuer, also of an expired one, so that Lite itself reports the expiry. */
  async function claimsOf(token) {
    try {
      return (await jwtVerify(token, verifier, { algorithms: ["ES256"] })).payload;
    } catch (error) {
      return error.code === "ERR_JWT_EXPIRED" ? error.payload : null;
    }
  }

  /** The claims with a tolerance for an `iat` in the future as in PostgREST: Lite would refuse one second. */
  function withSkew(claims) {
    const now = Math.floor(Date.now() / 1000);
    return claims.iat > now && claims.iat <= now + SKEW_SECONDS ? { ...claims, iat: now } : claims;
  }

  async function inbound(request) {
    const token = BEARER.exec(request.headers.get("authorization") ?? "")?.[1];
    if (!token) return request;
    const claims = await claimsOf(token);
    const translated = claims
      ? await new SignJWT(withSkew(claims)).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(shared)
      : "not.one.ofours"; // anything not signed by our key, HS256 included, must fail as a bad token
    const headers = new Headers(request.headers);
    headers.set("authorization", `Bearer ${translated}`);
    return new Request(request, { headers });
  }

  /** An access token of Lite as hosted Supabase would sign it for `user`. */
  async function hosted(token, user, method) {
    const { payload } = await jwtVerify(token, shared, { algorithms: ["HS256"] });
    const claims = {
      iss: issuer,
      ...payload,
      phone: "",
      app_metadata: user?.app_metadata,
      user_metadata: user?.user_metadata,
      aal: "aal1",
      amr: [(await signIn(payload.session_id, method)) ?? { method, timestamp: payload.iat }],
      is_anonymous: false,
    };
    return await new SignJWT(claims).setProtectedHeader({ alg: "ES256", kid: publicKey.kid, typ: "JWT" }).sign(signer);
  }

  /** The user of a token of Lite. */
  async function userOf(token, url) {
    const headers = { apikey: apiKey, authorization: `Bearer ${token}` };
    const response = await handle(new Request(new URL(`${AUTH}user`, url), { headers }), null);
    return response.ok ? await response.json() : undefined;
  }

  async function translatedBody(response, method) {
    const body = await response.json();
    if (body?.access_token) body.access_token = await hosted(body.access_token, body.user, method);
    const headers = new Headers(response.headers);
    headers.delete("content-length");
    return new Response(JSON.stringify(body), { status: response.status, headers });
  }

  async function translatedRedirect(response, url, method) {
    const [target, fragment = ""] = response.headers.get("location").split("#");
    const values = new URLSearchParams(fragment);
    const token = values.get("access_token");
    if (!token) return response;
    values.set("access_token", await hosted(token, await userOf(token, url), method));
    const headers = new Headers(response.headers);
    headers.set("location", `${target}#${values}`);
    return new Response(null, { status: response.status, headers });
  }

  return async (request, peer) => {
    const { pathname } = new URL(request.url);
    const reads = request.method === "GET" || request.method === "HEAD";
    if (reads && pathname === JWKS_PATH) return published(jwks);
    if (reads && pathname === DISCOVERY_PATH) return published(discovery);
    const response = await handle(await inbound(request), peer);
    if (!pathname.startsWith(AUTH)) return response;
    const method = pathname === `${AUTH}verify` ? "otp" : "password";
    if (response.headers.has("location")) return await translatedRedirect(response, request.url, method);
    return response.ok && isJson(response) ? await translatedBody(response, method) : response;
  };
}

// Access tokens as hosted Supabase signs them: ES256, published as JWKS, with `iss` and the usual claims. Lite itself knows
// only HS256 with a shared secret, so tokens are translated on their way out and back on their way in.
import { SignJWT, exportJWK, generateKeyPair, importJWK, jwtVerify } from "jose";
import { readFile, writeFile } from "node:fs/promises";

const JWKS_PATH = "/auth/v1/.well-known/jwks.json";
const ISSUES_TOKENS = /^\/auth\/v1\/(signup|token|verify)$/;
const BEARER = /^Bearer (ey\S+)$/;

/** The signing key in `file`, made on first use. */
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

/** Wraps Lite's request handler so that clients see ES256 tokens issued by `issuer`. */
export async function withHostedTokens(handle, { issuer, secret, keyFile }) {
  const { d, ...publicKey } = await signingKey(keyFile);
  const [signer, verifier] = [await importJWK({ ...publicKey, d }, "ES256"), await importJWK(publicKey, "ES256")];
  const shared = new TextEncoder().encode(secret);
  const jwks = JSON.stringify({ keys: [{ ...publicKey, key_ops: ["verify"], ext: true }] });

  /** The claims of one of our tokens; an expired one keeps its claims, so that Lite itself says that it expired. */
  async function claimsOf(token) {
    try {
      return (await jwtVerify(token, verifier, { algorithms: ["ES256"] })).payload;
    } catch (error) {
      return error.code === "ERR_JWT_EXPIRED" ? error.payload : null;
    }
  }

  async function inbound(request) {
    const token = BEARER.exec(request.headers.get("authorization") ?? "")?.[1];
    if (!token) return request;
    const claims = await claimsOf(token);
    const translated = claims
      ? await new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(shared)
      : "not.one.ofours"; // anything not signed by our key, HS256 included, must fail as a bad token
    const headers = new Headers(request.headers);
    headers.set("authorization", `Bearer ${translated}`);
    return new Request(request, { headers });
  }

  async function outbound(response) {
    const body = await response.json();
    if (body.access_token) {
      const { payload } = await jwtVerify(body.access_token, shared, { algorithms: ["HS256"] });
      const claims = {
        iss: issuer,
        ...payload,
        phone: "",
        app_metadata: body.user?.app_metadata,
        user_metadata: body.user?.user_metadata,
        aal: "aal1",
        amr: [{ method: "password", timestamp: payload.iat }],
        is_anonymous: false,
      };
      body.access_token = await new SignJWT(claims)
        .setProtectedHeader({ alg: "ES256", kid: publicKey.kid, typ: "JWT" })
        .sign(signer);
    }
    const headers = new Headers(response.headers);
    headers.delete("content-length");
    return new Response(JSON.stringify(body), { status: response.status, headers });
  }

  return async (request, peer) => {
    const { pathname } = new URL(request.url);
    if (pathname === JWKS_PATH)
      return new Response(jwks, {
        headers: { "content-type": "application/json", "cache-control": "public, max-age=600" },
      });
    const response = await handle(await inbound(request), peer);
    return ISSUES_TOKENS.test(pathname) && response.ok ? outbound(response) : response;
  };
}

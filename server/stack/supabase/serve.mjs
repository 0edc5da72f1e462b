// Supabase Lite as one process of the local stack. `serve.mjs --prepare` creates its `auth` schema and exits;
// without arguments it serves until SIGTERM or SIGINT.
import { serve } from "@hono/node-server";
import { App } from "@supabase/lite";
import config from "./config.mjs";
import { withCors } from "./cors.mjs";
import { MailFile, withDestinations, withMailCodes } from "./mails.mjs";
import { withHostedTokens } from "./tokens.mjs";

const { port } = config.api;
const projectUrl = `http://127.0.0.1:${port}`;
const email = new MailFile({ file: process.env.LITE_MAIL_FILE, projectUrl });

// In admin mode, requests without a key from this machine would have the role service_role.
const app = new App({ ...config, options: { server: { admin: false }, drivers: { email } } });
await app.init();
await app.ensureSystemSchema();

if (process.argv.includes("--prepare")) {
  await app.connection.close();
  process.exit(0);
}

// Lite grants rights to its roles at its first request. Of two concurrent first requests, one would fail (23505).
await app.connection.ensureRlsContext();

/** How and when the user of a session signed in, as in its tokens' `amr`; a refresh is no sign-in. `method` is stored at the
 * first call, in a column that Lite does not use. */
async function signIn(sessionId, method) {
  const { rows } = await app.connection.exec`
    update auth.sessions set tag = coalesce(tag, ${method}) where id = ${sessionId}
    returning tag as method, floor(extract(epoch from created_at))::bigint::text as timestamp`;
  return rows[0] && { method: rows[0].method, timestamp: Number(rows[0].timestamp) };
}

const lite = (request, peerAddress) => app.fetch(request, { peerAddress });
const handle = withCors(
  await withHostedTokens(withMailCodes(withDestinations(lite)), {
    issuer: `${projectUrl}/auth/v1`,
    secret: config.auth.jwt_secret,
    keyFile: process.env.LITE_SIGNING_KEY_FILE,
    apiKey: config.auth.publishable_key,
    signIn,
  }),
);

/** Lite and the HTTP server both set Content-Length, which strict clients refuse. */
async function answer(request, peer) {
  const response = await handle(request, peer);
  response.headers.delete("content-length");
  return response;
}

const server = serve({
  port,
  hostname: "127.0.0.1",
  fetch: (request, env) => answer(request, env.incoming.socket.remoteAddress ?? null),
});

for (const signal of ["SIGTERM", "SIGINT"])
  process.once(signal, () => {
    server.close(async () => {
      await app.connection.close();
      process.exit(0);
    });
    server.closeIdleConnections();
  });

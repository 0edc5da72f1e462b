// The configuration of Supabase Lite: database, keys and sign-in. Reads environment variables only.
import { createPostgresConnection } from "@supabase/lite/postgres";

const required = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
};

// Hosted Supabase returns times as RFC 3339 ("2026-01-01T00:00:00+00:00") and numerics as numbers; the PostgreSQL driver
// returns the database's text ("2026-01-01 00:00:00+00"), which Supabase's clients cannot parse.
const rfc3339 = (text) => text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00");
const number = (text) => (Number.isFinite(Number(text)) ? Number(text) : text);
const serialize = (value) => (value instanceof Date ? value.toISOString() : String(value));
const type = (oid, parse) => ({ to: oid, from: [oid], serialize, parse });

// Allowed targets of links in e-mails, besides this machine's IP addresses and the site: localhost on any port, for an app
// under development, and LITE_REDIRECT_URLS. In Lite's patterns `**` matches anything; ports are matched digit by digit, so
// that no password or other host matches.
const ports = [1, 2, 3, 4, 5].map((digits) => `:${"[0-9]".repeat(digits)}`);
const localhost = ["http", "https"].flatMap((scheme) => ["", ...ports].map((port) => `${scheme}://localhost${port}`));
const named = (process.env.LITE_REDIRECT_URLS ?? "").split(",").map((url) => url.trim());
const destinations = [...localhost.flatMap((origin) => [origin, `${origin}/**`, `${origin}\\?**`]), ...named.filter(Boolean)];

export default {
  project_id: "local",
  connection: createPostgresConnection({
    url: required("LITE_DATABASE_URL"),
    postgresOptions: {
      max: 10,
      onnotice: () => {}, // otherwise each NOTICE is printed
      connection: { application_name: "supabase-lite" },
      types: {
        timestamptz: type(1184, rfc3339),
        timestamp: type(1114, (text) => text.replace(" ", "T")),
        numeric: type(1700, number),
      },
    },
  }),
  api: { enabled: true, port: Number(required("LITE_PORT")), schemas: ["public"], max_rows: 1000, pg_safe_update: true },
  db: { driver: "postgres", migrations: { enabled: true, schema_paths: [] }, seed: { enabled: false } },
  auth: {
    enabled: true,
    site_url: required("LITE_SITE_URL"),
    additional_redirect_urls: destinations,
    jwt_secret: required("LITE_JWT_SECRET"),
    jwt_expiry: Number(required("LITE_JWT_EXPIRY")),
    publishable_key: required("LITE_PUBLISHABLE_KEY"),
    secret_key: required("LITE_SECRET_KEY"),
    enable_refresh_token_rotation: true,
    refresh_token_reuse_interval: 2,
    enable_signup: true,
    minimum_password_length: 8,
    password_requirements: "letters_digits",
    email: { enable_signup: true, enable_confirmations: process.env.LITE_CONFIRM_EMAIL === "true", max_frequency: "60s" },
  },
};

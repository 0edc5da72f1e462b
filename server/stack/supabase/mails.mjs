// Writes the mails of Supabase Auth to a file instead of sending them: one JSON object per line, the newest last. Their
// links lead to this project, which redirects to the target of the request that caused the mail.
import { AsyncLocalStorage } from "node:async_hooks";
import { appendFile, readFile, rename, writeFile } from "node:fs/promises";

const KEPT = 200;
const LINK = /https?:\/\/[^\s"'<>]+\/auth\/v1\/verify\?[^\s"'<>]+/g;
const CODE = /\bcode\b[^\n\d]*(\d{4,10})\b/;

const wanted = new AsyncLocalStorage();

/** The redirect target of a request's link, as in Auth: from the query, the header, or the referring page. */
function destination(request) {
  const { searchParams } = new URL(request.url);
  return searchParams.get("redirect_to") || request.headers.get("redirect_to") || request.headers.get("referer");
}

/** Wraps a request handler so that mails get the redirect target of the request that causes them. */
export function withDestinations(handle) {
  return (request, peer) => wanted.run(destination(request), () => handle(request, peer));
}

/** Wraps a request handler so that the code of any mail can be verified with type `email`. Lite supports only the types of
 * links; with `magiclink` it also finds the codes of confirmations. */
export function withMailCodes(handle) {
  return async (request, peer) => {
    if (request.method !== "POST" || new URL(request.url).pathname !== "/auth/v1/verify") return handle(request, peer);
    const text = await request.text();
    const body = text.replace(/("type"\s*:\s*)"email"/, '$1"magiclink"');
    return handle(new Request(request.url, { method: "POST", headers: request.headers, body }), peer);
  };
}

/** Lite's e-mail driver: appends each mail to `file`, of which at least the last 200 are stored. */
export class MailFile {
  #written = Promise.resolve();
  #count = null;

  constructor({ file, projectUrl }) {
    this.file = file;
    this.projectUrl = projectUrl;
  }

  /** Lite builds its links with the site's address, and ignores the requested target. Whether the target is allowed is
   * checked when the link is opened. */
  #link(text) {
    const link = new URL(text.replaceAll("&amp;", "&"));
    const target = wanted.getStore();
    if (target) link.searchParams.set("redirect_to", target);
    return `${this.projectUrl}${link.pathname}${link.search}`;
  }

  async send({ to, subject, text = "", html = "" }) {
    const [link = null] = text.match(LINK) ?? html.match(LINK) ?? [];
    const mail = {
      at: new Date().toISOString(),
      to,
      subject,
      kind: link && new URL(link).searchParams.get("type"),
      link: link && this.#link(link),
      code: CODE.exec(text)?.[1] ?? null,
      text: text.replace(LINK, (found) => this.#link(found)),
    };
    this.#written = this.#written.catch(() => {}).then(() => this.#append(JSON.stringify(mail)));
    await this.#written;
  }

  async #append(line) {
    this.#count ??= (await this.#lines()).length;
    await appendFile(this.file, `${line}\n`, { mode: 0o600 });
    this.#count += 1;
    if (this.#count < 2 * KEPT) return;
    const kept = (await this.#lines()).slice(-KEPT);
    await writeFile(`${this.file}.new`, kept.map((one) => `${one}\n`).join(""), { mode: 0o600 });
    await rename(`${this.file}.new`, this.file);
    this.#count = kept.length;
  }

  async #lines() {
    try {
      return (await readFile(this.file, "utf8")).split("\n").filter(Boolean);
    } catch (error) {
      if (error.code === "ENOENT") return [];
      throw error;
    }
  }
}

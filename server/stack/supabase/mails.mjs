// The mails of Supabase Auth, kept in a file in place of being sent: one JSON object a line, the newest last. Their links
// lead to this project, and on to where the request that caused the mail asked for.
import { AsyncLocalStorage } from "node:async_hooks";
import { appendFile, readFile, rename, writeFile } from "node:fs/promises";

const KEPT = 200;
const LINK = /https?:\/\/[^\s"'<>]+\/auth\/v1\/verify\?[^\s"'<>]+/g;
const CODE = /\bcode\b[^\n\d]*(\d{4,10})\b/;

const wanted = new AsyncLocalStorage();

/** Where a request asks for a link to lead: as Auth has it, by query, by header, else the page it was made from. */
function destination(request) {
  const { searchParams } = new URL(request.url);
  return searchParams.get("redirect_to") || request.headers.get("redirect_to") || request.headers.get("referer");
}

/** Wraps a request handler so that mails know where the request that causes them wants to lead. */
export function withDestinations(handle) {
  return (request, peer) => wanted.run(destination(request), () => handle(request, peer));
}

/** Wraps a request handler so that a mail's code may be given as of type `email`, whatever mail it came with. Lite knows
 * only the types of links; `magiclink` is the one by which it finds the codes of confirmations, too. */
export function withMailCodes(handle) {
  return async (request, peer) => {
    if (request.method !== "POST" || new URL(request.url).pathname !== "/auth/v1/verify") return handle(request, peer);
    const text = await request.text();
    const body = text.replace(/("type"\s*:\s*)"email"/, '$1"magiclink"');
    return handle(new Request(request.url, { method: "POST", headers: request.headers, body }), peer);
  };
}

/** Lite's e-mail driver: appends each mail to `file`, which keeps the last 200. */
export class MailFile {
  #written = Promise.resolve();
  #count = null;

  constructor({ file, projectUrl }) {
    this.file = file;
    this.projectUrl = projectUrl;
  }

  /** Lite builds its links on the site's address, and leads them there whatever was asked for. Whether a link may lead
   * where it says is judged when it is followed. */
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

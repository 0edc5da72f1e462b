// Requests to the REST API as the signed-in user. All of them throw ChatError, whose message is a sentence for people.
import { networkError } from "@ai-chat-platform/client/errors";
import { Rest } from "@ai-chat-platform/client/rest";
import { auth, readSession, server } from "./session";

const rest = new Rest(`${server}/api/v1`, async (request) => {
  const token = await auth.getToken(request);
  readSession(); // the sign-in may have ended
  return token;
});

type Query = Record<string, string | number | boolean | null | undefined>;

/** `withQuery("chat/history", {limit: 20, before: null})` is "chat/history?limit=20". */
export function withQuery(path: string, query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

export const get = <T>(path: string, query: Query = {}): Promise<T> => rest.json<T>(withQuery(path, query));

/** POST, PATCH or DELETE. Resolves to null where the answer has no body. */
export async function send<T>(method: "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
  const answer = await rest.request(path, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });
  const text = await answer.text();
  return (text ? JSON.parse(text) : null) as T;
}

/** Saves an answer as a file, such as an export. `progress` gets the bytes that have arrived. */
export async function download(path: string, name: string, accept: string, progress?: (bytes: number) => void): Promise<void> {
  const answer = await rest.request(path, { headers: { Accept: accept } });
  const address = URL.createObjectURL(await whole(answer, progress));
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

async function whole(answer: Response, progress?: (bytes: number) => void): Promise<Blob> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  try {
    const reader = answer.body!.getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      pieces.push(piece.value);
      progress?.((bytes += piece.value.length));
    }
  } catch (cause) {
    throw networkError(cause);
  }
  return new Blob(pieces, { type: answer.headers.get("Content-Type") ?? "" });
}

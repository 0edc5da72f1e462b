// Requests to the REST API with the user's token; wire.ts has the types of what it takes and answers.
import { ChatError, chatError, networkError, notSignedIn } from "./errors.js";
import type { GetToken } from "./tokens.js";
import type { Problem } from "./wire.js";

export class Rest {
  /** `api`: the address up to and including `/api/v1`. */
  constructor(
    readonly api: string,
    private readonly getToken: GetToken,
  ) {}

  /** The JSON of a successful answer. Throws ChatError. */
  async json<T>(path: string, init?: RequestInit): Promise<T> {
    const answer = await this.request(path, init);
    return answer.json().catch((cause) => {
      throw networkError(cause); // it broke off, or is a page of the network's own
    });
  }

  /** A successful answer. An expired token is renewed once. Throws ChatError. */
  async request(path: string, init?: RequestInit): Promise<Response> {
    let answer = await this.#send(path, init, false);
    if (answer.status === 401) answer = await this.#send(path, init, true);
    if (!answer.ok) throw await errorOf(answer);
    return answer;
  }

  async #send(path: string, init: RequestInit | undefined, expired: boolean): Promise<Response> {
    try {
      const token = await this.getToken({ expired });
      if (!token) throw notSignedIn();
      const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...init?.headers };
      return await fetch(`${this.api}/${path}`, { ...init, headers });
    } catch (cause) {
      throw networkError(cause);
    }
  }
}

/** The ChatError of an answer. One without a problem comes from a proxy, and counts as `network` if it may pass. */
export async function errorOf(answer: Response): Promise<ChatError & { problem?: Problem }> {
  try {
    const problem = (await answer.json()) as Problem;
    return Object.assign(chatError(problem), { problem });
  } catch {
    const passes = answer.status >= 500 || answer.status === 429;
    return new ChatError(passes ? "network" : "invalid_request", `The server answered ${answer.status}.`, { retryable: passes });
  }
}

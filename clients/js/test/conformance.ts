// The driver of clients/conformance for this client: performs what the server asks for, and reports what it shows.
import { type Chat, type ChatMessage, createChat } from "../src/index.js";

const suite = process.env["CONFORMANCE_URL"];
if (!suite) throw new Error("run this with: python -m clients.conformance node build/test/conformance.js");

type Action = { do: string; text?: string; turn_id?: string; passed?: boolean; problem?: string };

async function json<T>(url: string, body?: unknown): Promise<T> {
  const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  return (await (await fetch(url, init)).json()) as T;
}

const shown = (message: ChatMessage) => ({
  turn_id: message.turnId,
  role: message.role,
  text: message.text,
  status: message.status,
  reasoning: message.reasoning,
  tools: message.tools.map(({ name, status }) => ({ name, status })),
  error: message.error?.code ?? null,
  can_retry: message.canRetry,
  cost: message.cost,
  cost_status: message.costStatus,
  tokens: message.usage?.total_tokens ?? null,
});

const report = ({ state }: Chat) => ({
  connection: state.connection,
  error: state.error?.code ?? null,
  messages: state.messages.map(shown),
  queue: state.queue,
  agent: state.agent.status,
  budget_percent: state.budget?.percent ?? null,
  has_more: state.history.hasMore,
  is_loading: state.history.isLoading,
});

async function reportUntilAccepted(chat: Chat, url: string): Promise<void> {
  for (;;) {
    const { accepted } = await json<{ accepted: boolean }>(url, report(chat));
    if (accepted) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Resolves to null, or to what is wrong. */
async function play(scenario: string): Promise<string | null> {
  const { run, url } = await json<{ run: string; url: string }>(`${suite}/runs`, { scenario });
  const control = `${suite}/runs/${run}`;
  const chat = createChat({
    url,
    getToken: async ({ expired }) => (await json<{ token: string }>(`${control}/token?expired=${expired}`)).token,
    storage: null,
  });
  try {
    for (;;) {
      const action = await json<Action>(`${control}/next`);
      switch (action.do) {
        case "send":
          void chat.send(action.text!);
          break;
        case "interrupt":
          void chat.interrupt(action.text!);
          break;
        case "cancel":
          void chat.cancel();
          break;
        case "retry":
          void chat.retry(action.turn_id!);
          break;
        case "older":
          await chat.loadOlder();
          break;
        case "report":
          void reportUntilAccepted(chat, `${control}/report`).catch(() => {});
          break;
        case "end":
          return action.passed ? null : action.problem!;
      }
    }
  } finally {
    chat.close();
  }
}

const scenarios = await json<{ name: string; rule: string }[]>(`${suite}/scenarios`);
const only = process.argv.slice(2);
const chosen = scenarios.filter(({ name }) => !only.length || only.includes(name));
const results = await Promise.all(chosen.map(async (scenario) => ({ ...scenario, problem: await play(scenario.name) })));
for (const { name, rule, problem } of results) console.log(problem ? `not ok ${name}: ${rule}\n  ${problem}` : `ok ${name}`);
const failed = results.filter(({ problem }) => problem).length;
console.log(`${results.length - failed} passed, ${failed} failed`);
process.exit(failed || !results.length ? 1 : 0);

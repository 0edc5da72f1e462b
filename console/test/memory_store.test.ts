// What a reading of the memory resolves to.
import type { AgentMemory } from "@ai-chat-platform/client/wire";
import { expect, test, vi } from "vitest";

const get = vi.fn<() => Promise<AgentMemory>>();
vi.mock("../src/platform/api", () => ({ get }));
vi.mock("../src/platform/conversation", () => ({ chat: { value: null } }));
const user = vi.hoisted(() => ({ change: (_: { id: string } | null) => {} }));
vi.mock("../src/platform/session", async () => {
  const { signal } = await import("@preact/signals");
  const value = signal<{ id: string } | null>({ id: "ada" });
  user.change = (next) => (value.value = next);
  return { user: value };
});

const { memory, problem, readMemory } = await import("../src/memory/store");
const holding = (text: string) => ({ blocks: [{ label: "human", value: text }], archival: { data: [] } }) as unknown as AgentMemory;

test("a reading that another has overtaken resolves to what it read, and is not shown", async () => {
  let answer = (_: AgentMemory) => {};
  get.mockReturnValueOnce(new Promise((resolve) => (answer = resolve))).mockResolvedValueOnce(holding("new"));
  const [first, second] = [readMemory(), readMemory()];
  await second;
  answer(holding("old"));
  expect((await first)?.blocks[0]?.value).toBe("old");
  expect(memory.value?.blocks[0]?.value).toBe("new");
});

test("a reading that failed resolves to nothing, and says why", async () => {
  const error = new Error("no");
  get.mockRejectedValueOnce(error);
  expect(await readMemory()).toBeNull();
  expect(problem.value).toBe(error);
});

test("nothing of a user's memory stays for the next one, nor comes late", async () => {
  get.mockResolvedValueOnce(holding("secret"));
  await readMemory();
  let answer = (_: AgentMemory) => {};
  get.mockReturnValueOnce(new Promise((resolve) => (answer = resolve)));
  const late = readMemory();
  user.change(null);
  expect(memory.value).toBeNull();
  user.change({ id: "grace" });
  answer(holding("secret"));
  await late;
  expect(memory.value).toBeNull();
});

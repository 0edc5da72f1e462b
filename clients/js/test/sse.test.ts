import assert from "node:assert/strict";
import { test } from "node:test";
import { events } from "../src/sse.js";

async function read(...chunks: Uint8Array[]): Promise<string[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      chunks.forEach((chunk) => controller.enqueue(chunk));
      controller.close();
    },
  });
  const found: string[] = [];
  for await (const data of events(body)) found.push(data);
  return found;
}

test("events are found however the network cuts them, within characters too", async () => {
  const bytes = new TextEncoder().encode('id: e:1\nevent: message.delta\ndata: {"text":"é€😀"}\n\n: keep-alive\n\ndata: second\r\n\r\n');
  const whole = await read(bytes);
  assert.deepEqual(whole, ['{"text":"é€😀"}', "second"]);
  for (let size = 1; size < 8; size++) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.slice(index * size, (index + 1) * size));
    assert.deepEqual(await read(...chunks), whole);
  }
});

test("an event that is not complete is not delivered", async () => {
  assert.deepEqual(await read(new TextEncoder().encode("data: cut")), []);
});

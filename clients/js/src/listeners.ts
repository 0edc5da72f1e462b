// Two ways to follow the events: a callback for each type, and `for await`.
import type { SessionEvent } from "./wire.js";

export type EventType = SessionEvent["type"];
export type EventOf<T extends EventType> = Extract<SessionEvent, { type: T }>;

export class Listeners {
  readonly #all = new Set<(event: SessionEvent | null) => void>();

  on<T extends EventType>(type: T, listener: (event: EventOf<T>) => void): () => void {
    return this.#add((event) => event?.type === type && listener(event as EventOf<T>));
  }

  /** null ends all iterations. A listener that throws does not stop the others. */
  emit(event: SessionEvent | null): void {
    for (const listener of this.#all) queueMicrotask(() => listener(event));
  }

  /** From now on, until the end, or until the loop is left. */
  [Symbol.asyncIterator](): AsyncGenerator<SessionEvent, void, undefined> {
    const waiting: (SessionEvent | null)[] = [];
    let wake = () => {};
    const stop = this.#add((event) => (waiting.push(event), wake()));
    return (async function* () {
      try {
        for (;;) {
          if (!waiting.length) await new Promise<void>((resolve) => (wake = resolve));
          const event = waiting.shift();
          if (!event) return;
          yield event;
        }
      } finally {
        stop();
      }
    })();
  }

  #add(listener: (event: SessionEvent | null) => void): () => void {
    this.#all.add(listener);
    return () => this.#all.delete(listener);
  }
}

// Short news that need no answer: "Copied". They are read out, and disappear.
import { signal } from "@preact/signals";

const SECONDS = 4;
const toasts = signal<readonly { id: number; text: string }[]>([]);
let last = 0;

export function announce(text: string): void {
  const id = ++last;
  toasts.value = [...toasts.value, { id, text }];
  setTimeout(() => (toasts.value = toasts.value.filter((toast) => toast.id !== id)), SECONDS * 1000);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text }) => (
        <div key={id} class="toast">{text}</div>
      ))}
    </div>
  );
}

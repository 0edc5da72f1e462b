// What is being written. It survives a reload, is each user's own, and ends with their signing out.
import { effect, signal } from "@preact/signals";
import { signedOutBecause, user } from "../platform/session";

export const draft = signal("");

let owner: string | null = null;
const nameOf = (id: string) => `console.draft.${id}`;

effect(() => {
  const id = user.value?.id ?? null;
  if (id === owner) return;
  if (owner && !signedOutBecause.peek()) write(owner, "");
  owner = id;
  draft.value = id ? read(id) : "";
});

effect(() => {
  const text = draft.value;
  if (owner) write(owner, text);
});

function read(id: string): string {
  try {
    return localStorage.getItem(nameOf(id)) ?? "";
  } catch {
    return "";
  }
}

function write(id: string, text: string): void {
  try {
    if (text) localStorage.setItem(nameOf(id), text);
    else localStorage.removeItem(nameOf(id));
  } catch {
    // storage is forbidden or full: the draft lasts until the reload
  }
}

// A user who signs out leaves the look of the page, and nothing else.
import { beforeEach, expect, test, vi } from "vitest";

/** Entries are own properties, as those of a browser's storage are. */
class FakeStorage {
  [key: string]: unknown;
  getItem(key: string) {
    return (this[key] as string | undefined) ?? null;
  }
  setItem(key: string, value: string) {
    this[key] = value;
  }
  removeItem(key: string) {
    delete this[key];
  }
  clear() {
    for (const key of Object.keys(this)) delete this[key];
  }
}

const [local, tab] = [new FakeStorage(), new FakeStorage()];

beforeEach(() => {
  vi.stubGlobal("document", { documentElement: { dataset: {} } });
  vi.stubGlobal("localStorage", local);
  vi.stubGlobal("sessionStorage", tab);
});

test("drafts, messages that were not sent and awaited mails go; theme, language and other apps' entries stay", async () => {
  const { forgetAllButChoices, remember } = await import("../src/platform/preferences");
  for (const name of ["theme", "language", "draft", "awaited"]) remember(name, "x");
  local.setItem("another app's", "x");
  tab.setItem("chat.outbox.1", "x");
  forgetAllButChoices();
  expect(Object.keys(local).sort()).toEqual(["another app's", "console.language", "console.theme"]);
  expect(Object.keys(tab)).toEqual([]);
});

test("where storage is forbidden, nothing fails", async () => {
  const { forgetAllButChoices, remember, remembered } = await import("../src/platform/preferences");
  vi.stubGlobal("localStorage", undefined);
  remember("theme", "dark");
  forgetAllButChoices();
  expect(remembered("theme", ["dark"])).toBeNull();
});

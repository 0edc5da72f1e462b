// An address that has been opened before its event has come.
import { expect, test, vi } from "vitest";

test("a place that has been left is known before the event of it", async () => {
  const events = new EventTarget();
  vi.stubGlobal("location", { hash: "#/admin/users?query=ada" });
  vi.stubGlobal("addEventListener", events.addEventListener.bind(events));
  const { isLeaving, route } = await import("../src/platform/route");
  expect(isLeaving()).toBe(false);
  location.hash = "#/admin/users/7";
  expect([isLeaving(), route.value]).toEqual([true, ["admin", "users"]]);
  events.dispatchEvent(new Event("hashchange"));
  expect([isLeaving(), route.value]).toEqual([false, ["admin", "users", "7"]]);
});

test("an address that is not encoded rightly opens nothing, and breaks nothing", async () => {
  vi.resetModules();
  vi.stubGlobal("location", { hash: "#/admin/%E0%A4%A" });
  vi.stubGlobal("addEventListener", () => {});
  const { route } = await import("../src/platform/route");
  expect(route.value).toEqual(["admin", "%E0%A4%A"]);
});

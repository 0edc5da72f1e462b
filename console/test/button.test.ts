// A button while its action runs.
import { expect, test, vi } from "vitest";
import { Button } from "../src/ui/button";

const propsOf = (busy: boolean, onClick: () => void) => Button({ type: "submit", busy, onClick, children: "Save" }).props as unknown as Record<string, unknown> & { onClick: (event: Event) => void };

test("a busy button does nothing, sends no form, and can keep the focus", () => {
  const [act, refuse] = [vi.fn(), vi.fn()];
  const busy = propsOf(true, act);
  busy.onClick({ preventDefault: refuse } as unknown as Event);
  expect([act.mock.calls.length, refuse.mock.calls.length]).toEqual([0, 1]);
  expect([busy["disabled"], busy["aria-disabled"]]).toEqual([undefined, true]);
  propsOf(false, act).onClick(new Event("click"));
  expect(act).toHaveBeenCalledOnce();
});

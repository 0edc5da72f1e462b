// Ranges of days, the forecast, and the numbers behind a plot.
import { expect, test } from "vitest";
import { daysBetween, stacked, topSeries } from "../src/ui/plot_data";
import { byModel, isRange, rangeFrom, rangeOf, reachedAt } from "../src/usage/days";

const NOW = Date.parse("2026-11-29T10:00:00Z");
const from = (query: string) => rangeFrom(new URLSearchParams(query), NOW);

test("a preset's days end today and are so many", () => {
  expect(rangeOf("7", NOW)).toEqual({ preset: "7", from: "2026-11-23", to: "2026-11-29" });
  expect(rangeOf("month", NOW)).toEqual({ preset: "month", from: "2026-11-01", to: "2026-11-29" });
  expect(daysBetween(rangeOf("30", NOW).from, rangeOf("30", NOW).to)).toHaveLength(30);
});

test("the address names the range; what it cannot mean is the last 30 days", () => {
  expect(from("range=90")).toEqual(rangeOf("90", NOW));
  expect(from("from=2026-01-01&to=2026-01-31")).toEqual({ preset: "own", from: "2026-01-01", to: "2026-01-31" });
  for (const wrong of ["", "range=own", "range=12", "from=2026-02-01&to=2026-01-01", "from=x&to=y", "from=2024-01-01&to=2026-01-01"])
    expect(from(wrong)).toEqual(rangeOf("30", NOW));
});

test("a range has at most 366 days", () => {
  expect(isRange("2024-01-01", "2024-12-31")).toBe(true);
  expect(isRange("2024-01-01", "2025-01-01")).toBe(false);
});

test("the budget is reached where the pace crosses it", () => {
  const until = "2026-12-09T10:00:00Z"; // in ten days
  expect(reachedAt({ spent: "10", limit: "20" }, { until, cost: "30" }, NOW)).toEqual(new Date("2026-12-04T10:00:00Z"));
  expect(reachedAt({ spent: "10", limit: "20" }, { until, cost: "19" }, NOW)).toBeNull();
  expect(reachedAt({ spent: "20", limit: "20" }, { until, cost: "40" }, NOW)).toBeNull();
  expect(reachedAt({ spent: "0", limit: "0" }, { until, cost: "0" }, NOW)).toBeNull();
});

test("days without usage are zeros in each model's series", () => {
  const used = [{ date: "2026-11-02", models: [{ model: "b", cost: "2" }, { model: "a", cost: "1" }] }];
  const series = byModel(daysBetween("2026-11-01", "2026-11-03"), used, [{ model: "b" }, { model: "a" }], ({ cost }) => Number(cost));
  expect(series).toEqual([{ label: "b", values: [0, 2, 0] }, { label: "a", values: [0, 1, 0] }]);
});

test("days are counted over the end of a month and a leap day", () => {
  expect(daysBetween("2028-02-28", "2028-03-01")).toEqual(["2028-02-28", "2028-02-29", "2028-03-01"]);
});

test("stacked series are sums from the bottom up", () => {
  expect(stacked([{ label: "a", values: [1, 0] }, { label: "b", values: [2, 3] }], 2)).toEqual([[1, 0], [3, 3]]);
});

test("more series than colours are shown as the first ones and the rest", () => {
  const many = Array.from({ length: 8 }, (_, index) => ({ label: `m${index}`, values: [1, index] }));
  const shown = topSeries(many, "Others");
  expect(shown).toHaveLength(6);
  expect(shown.at(-1)).toEqual({ label: "Others", values: [3, 5 + 6 + 7] });
  expect(topSeries(many.slice(0, 6), "Others")).toHaveLength(6);
});

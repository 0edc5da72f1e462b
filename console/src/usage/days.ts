// Ranges of days in UTC, as the usage endpoints have them, and what the address says of the chosen one.
import { COLOURS } from "../ui/plot_data";

export type Preset = "7" | "30" | "90" | "month" | "own";
export interface Range {
  preset: Preset;
  /** Days as YYYY-MM-DD, both included. */
  from: string;
  to: string;
}

export const PRESETS: readonly Preset[] = ["7", "30", "90", "month", "own"];
export const LONGEST = 366;
const DAY = 86_400_000;

export const dayOf = (at: number): string => new Date(at).toISOString().slice(0, 10);

/** The range of a preset, as of now. `own` begins with the last 30 days. */
export function rangeOf(preset: Preset, now: number): Range {
  const to = dayOf(now);
  if (preset === "month") return { preset, from: `${to.slice(0, 8)}01`, to };
  const days = preset === "own" ? 30 : Number(preset);
  return { preset, from: dayOf(now - (days - 1) * DAY), to };
}

/** The range that an address's parameters name; the last 30 days if they name none. */
export function rangeFrom(parameters: URLSearchParams, now: number): Range {
  const [from, to] = [parameters.get("from") ?? "", parameters.get("to") ?? ""];
  if (from && to && isRange(from, to)) return { preset: "own", from, to };
  const preset = PRESETS.find((known) => known === parameters.get("range")) ?? "30";
  return rangeOf(preset === "own" ? "30" : preset, now);
}

/** Whether the server takes these two days. */
export function isRange(from: string, to: string): boolean {
  const days = (Date.parse(to) - Date.parse(from)) / DAY + 1;
  return /^2\d{3}-/.test(from) && days >= 1 && days <= LONGEST;
}

/** When the budget is used up at the average pace that the forecast assumes, if that is before its `until`. */
export function reachedAt(budget: { spent: string; limit: string }, projection: { until: string; cost: string }, now: number): Date | null {
  const [spent, limit, cost, until] = [Number(budget.spent), Number(budget.limit), Number(projection.cost), Date.parse(projection.until)];
  if (spent >= limit || cost < limit || cost <= spent || until <= now) return null;
  return new Date(now + ((limit - spent) / (cost - spent)) * (until - now));
}

interface Model {
  model: string;
}

/** A series for each model, the most expensive first, with a value for each day; days without usage are zeros. */
export function byModel<M extends Model>(
  days: readonly string[],
  used: readonly { date: string; models: readonly M[] }[],
  models: readonly Model[],
  value: (spending: M) => number,
): { label: string; values: number[] }[] {
  const found = new Map(used.map(({ date, models }) => [date, new Map(models.map((spending) => [spending.model, spending]))]));
  return models.map(({ model }) => ({
    label: model,
    values: days.map((day) => {
      const spending = found.get(day)?.get(model);
      return spending ? value(spending) : 0;
    }),
  }));
}

/** The colour that a model has in the plot, as a class. */
export const colourOf = (index: number): string => `colour-${Math.min(index + 1, COLOURS)}`;

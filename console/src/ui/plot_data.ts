// The numbers behind a plot.

export interface Series {
  label: string;
  /** One for each day. */
  values: readonly number[];
}

/** As many series as there are colours. */
export const COLOURS = 6;

/** At most `COLOURS` series: the first ones, and the rest as one. */
export function topSeries(series: readonly Series[], rest: string): readonly Series[] {
  if (series.length <= COLOURS) return series;
  const others = series.slice(COLOURS - 1);
  const values = others[0]!.values.map((_, day) => others.reduce((sum, one) => sum + (one.values[day] ?? 0), 0));
  return [...series.slice(0, COLOURS - 1), { label: rest, values }];
}

/** For each series the sum of it and of those below it. Drawn from the last to the first, they look stacked. */
export function stacked(series: readonly Series[], days: number): number[][] {
  const below = new Array<number>(days).fill(0);
  return series.map(({ values }) => below.map((sum, day) => (below[day] = sum + (values[day] ?? 0))));
}

/** Each day from `from` to `to` (YYYY-MM-DD, both included). */
export function daysBetween(from: string, to: string): string[] {
  const days: string[] = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86_400_000) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}

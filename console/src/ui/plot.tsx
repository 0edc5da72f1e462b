// Days as stacked bars, for usage: one colour a series. The same numbers can be unfolded as a table, which is also what a
// screen reader and a keyboard have. The drawing itself (uPlot) is loaded when the first plot is shown.
import "./plot.css";
import { useEffect, useRef, useState } from "preact/hooks";
import { language } from "../platform/language";
import { theme } from "../platform/preferences";
import type { Drawn } from "./plot_canvas";
import { type Series, stacked, topSeries } from "./plot_data";
import { words } from "./words";

interface PlotProps {
  /** Names the plot for screen readers; a heading above it is the caller's. */
  title: string;
  /** Each day of the range as YYYY-MM-DD, in UTC, without gaps. `days` and `series` are drawn anew when they are other
   * objects: make them with useMemo. */
  days: readonly string[];
  /** The bars' parts, from the bottom up; each has a value for each day. */
  series: readonly Series[];
  /** A value as text: `money` or `count`. */
  format: (value: number) => string;
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

export function Plot({ title, days, series: all, format }: PlotProps) {
  const t = words();
  const host = useRef<HTMLDivElement>(null);
  const swatches = useRef<HTMLUListElement>(null);
  const [under, setUnder] = useState<{ day: number; left: number } | null>(null);
  const [isLost, setLost] = useState(false);
  const series = topSeries(all, t.others);
  const totals = days.map((_, day) => sum(series.map(({ values }) => values[day] ?? 0)));
  const highest = totals.indexOf(Math.max(...totals));
  const chosen = theme.value;
  const lang = language.value;

  useEffect(() => {
    let drawn: Drawn | null = null;
    let isGone = false;
    import("./plot_canvas").then(
      ({ draw }) => {
        if (isGone || !host.current || !swatches.current) return;
        const colours = [...swatches.current.querySelectorAll(".swatch")];
        drawn = draw(host.current, { labels: days.map(shortDay), sums: stacked(series, days.length), colours, format, onDay: setUnder });
      },
      () => setLost(true),
    );
    return () => {
      isGone = true;
      drawn?.destroy();
      setUnder(null);
    };
  }, [days, all, format, chosen, lang]);

  const shown = under && days[under.day] !== undefined ? under : null;
  return (
    <figure class="plot">
      <figcaption class="only-read">{title}</figcaption>
      <ul class="plot-legend" ref={swatches} hidden={series.length < 2}>
        {series.map(({ label }, index) => (
          <li key={label}><span class={`swatch colour-${index + 1}`} />{label}</li>
        ))}
      </ul>
      {!isLost && (
        <div class="plot-area">
          <div ref={host} class="plot-canvas" role="img" aria-label={totals.length ? t.plotSummary(title, format(sum(totals)), longDay(days[highest]!), format(totals[highest]!)) : title} />
          {shown && (
            <div class="plot-tip" style={{ left: `${shown.left}px` }} data-side={shown.left > (host.current?.clientWidth ?? 0) / 2 ? "start" : "end"}>
              <strong>{longDay(days[shown.day]!)}</strong>
              {series.map(({ label, values }, index) => (values[shown.day] ?? 0) > 0 && (
                <span key={label} class="plot-tip-line"><span class={`swatch colour-${index + 1}`} /><span>{label}</span><span class="number">{format(values[shown.day]!)}</span></span>
              ))}
              {series.length > 1 && <span class="plot-tip-line"><span /><span>{t.total}</span><strong class="number">{format(totals[shown.day]!)}</strong></span>}
            </div>
          )}
        </div>
      )}
      <details open={isLost}>
        <summary class="small">{t.asTable}</summary>
        <div class="table" tabIndex={0} role="region" aria-label={title}>
          <table>
            <thead>
              <tr>
                <th scope="col">{t.day}</th>
                {series.map(({ label }) => <th key={label} scope="col" class="number">{label}</th>)}
                {series.length > 1 && <th scope="col" class="number">{t.total}</th>}
              </tr>
            </thead>
            <tbody>
              {days.map((day, index) => totals[index]! > 0 && (
                <tr key={day}>
                  <th scope="row">{longDay(day)}</th>
                  {series.map(({ label, values }) => <td key={label} class="number">{format(values[index] ?? 0)}</td>)}
                  {series.length > 1 && <td class="number">{format(totals[index]!)}</td>}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}

const shortDay = (day: string) => new Intl.DateTimeFormat(language.value, { day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(day));
const longDay = (day: string) => new Intl.DateTimeFormat(language.value, { dateStyle: "medium", timeZone: "UTC" }).format(new Date(day));

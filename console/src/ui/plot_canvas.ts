// Draws a plot with uPlot. Colours are read from the page at each drawing, since a canvas does not know the tokens.
import "uplot/dist/uPlot.min.css";
import uPlot from "uplot";

export interface Drawing {
  /** Below the bars. */
  labels: readonly string[];
  /** For each series, each day's height. */
  sums: readonly (readonly number[])[];
  /** For each series an element with its colour as background. */
  colours: readonly Element[];
  format: (value: number) => string;
  /** The day under the pointer, and where it is, in pixels from the left; or null. */
  onDay: (day: { day: number; left: number } | null) => void;
}

export interface Drawn {
  destroy(): void;
}

const HEIGHT = 220;
const STEPS = [1, 2, 3, 5, 7, 14, 30, 60, 90];

export function draw(host: HTMLElement, { labels, sums, colours, format, onDay }: Drawing): Drawn {
  const style = getComputedStyle(host);
  const text = () => style.color;
  const line = { stroke: () => style.borderTopColor, width: 1 };
  const font = `12px ${style.fontFamily}`;
  const top = sums.at(-1) ?? [];
  const widthOf = (values: readonly string[] | null) => 16 + 7 * Math.max(3, ...(values ?? []).map(({ length }) => length));
  const parts = sums.map((_, index) => index).reverse(); // the highest is drawn first, the lower ones over it
  const bars = uPlot.paths.bars!({ size: [0.72, 44], radius: 0.12 });

  const plot = new uPlot(
    {
      width: Math.max(host.clientWidth, 100),
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
      scales: { x: { time: false, range: [-0.5, labels.length - 0.5] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } },
      axes: [
        { stroke: text, font, size: 28, grid: { show: false }, ticks: { show: false }, incrs: STEPS, space: 64, values: (_, days) => days.map((day) => labels[day] ?? "") },
        { stroke: text, font, grid: line, ticks: { show: false }, size: (_, values) => widthOf(values), values: (_, values) => values.map((value) => format(value)) },
      ],
      series: [{}, ...parts.map((part): uPlot.Series => {
        const colour = () => getComputedStyle(colours[part]!).backgroundColor;
        return { paths: bars, points: { show: false }, width: 0, fill: colour, stroke: colour };
      })],
      hooks: {
        setCursor: [({ cursor, over }) => {
          const { idx, left } = cursor;
          onDay(idx == null || left == null || left < 0 || !(top[idx]! > 0) ? null : { day: idx, left: plot.valToPos(idx, "x") + over.offsetLeft });
        }],
      },
    },
    [labels.map((_, day) => day), ...parts.map((part) => [...sums[part]!])],
    host,
  );

  const size = new ResizeObserver(() => plot.setSize({ width: Math.max(host.clientWidth, 100), height: HEIGHT }));
  size.observe(host);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const redraw = () => plot.redraw(false);
  scheme.addEventListener("change", redraw);
  return {
    destroy() {
      size.disconnect();
      scheme.removeEventListener("change", redraw);
      plot.destroy();
    },
  };
}

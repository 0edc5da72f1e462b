// How full something is: a budget, a memory block, the context window with its parts.
import "./plot.css";
import { percent } from "../platform/format";

interface BarProps {
  /** What it shows, for screen readers. */
  label: string;
  /** How much of it is used, as text: "$2 of $10". */
  text: string;
  value: number;
  max: number;
  /** The parts of `value`, drawn one after the other in the plots' colours. Without them the bar warns when it is nearly full. */
  parts?: readonly number[];
  thin?: boolean;
}

export function Bar({ label, text, value, max, parts, thin }: BarProps) {
  const share = max > 0 ? Math.min(value / max, 1) : 0;
  const width = (part: number) => ({ width: `${max > 0 ? Math.min(part / max, 1) * 100 : 0}%` });
  const level = share >= 1 ? "bad" : share >= 0.8 ? "warn" : "good";
  return (
    <div class={`bar ${thin ? "thin" : ""}`} role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={max} aria-valuenow={Math.min(value, max)} aria-valuetext={`${text} (${percent(share)})`}>
      {parts ? parts.map((part, index) => part > 0 && <span key={index} class={`colour-${index + 1}`} style={width(part)} />) : value > 0 && <span class={level} style={width(value)} />}
    </div>
  );
}

// Which days to show: the last 7, 30 or 90, this month, or from one day to another. The choice is in the address, so that
// it survives a reload and can be sent to somebody.
import { useMemo, useState } from "preact/hooks";
import { open, parameters, route, to } from "../platform/route";
import { Field } from "../ui/field";
import { dayOf, isRange, PRESETS, type Preset, type Range, rangeFrom, rangeOf } from "./days";
import { words } from "./words";

/** The range that the address names. */
export function useRange(): Range {
  const query = parameters.value.toString();
  const today = dayOf(Date.now());
  return useMemo(() => rangeFrom(new URLSearchParams(query), Date.parse(today)), [query, today]);
}

function show(query: Record<string, string>) {
  open(`${to(...route.value)}?${new URLSearchParams(query)}`, { replace: true });
}

export function RangeChooser({ range }: { range: Range }) {
  const t = words();
  const [own, setOwn] = useState<{ from: string; to: string } | null>(range.preset === "own" ? range : null);
  const chosen = own ? "own" : range.preset;
  const choose = (preset: Preset) => {
    setOwn(preset === "own" ? { from: range.from, to: range.to } : null);
    if (preset !== "own") show({ range: preset });
    else show({ from: range.from, to: range.to });
  };
  const change = (part: { from?: string; to?: string }) => {
    const changed = { ...(own ?? range), ...part };
    setOwn({ from: changed.from, to: changed.to });
    if (isRange(changed.from, changed.to)) show({ from: changed.from, to: changed.to });
  };
  const isWrong = own !== null && !isRange(own.from, own.to);
  const latest = rangeOf("7", Date.now()).to;
  return (
    <div class="range">
      <div class="range-presets" role="group" aria-label={t.range}>
        {PRESETS.map((preset) => (
          <button key={preset} type="button" class="range-preset" aria-pressed={preset === chosen} onClick={() => choose(preset)}>{t[`range_${preset}`]}</button>
        ))}
      </div>
      {own && (
        <div class="row range-own">
          <Field label={t.from} type="date" value={own.from} max={latest} required onInput={(event) => change({ from: event.currentTarget.value })} />
          <Field label={t.to} type="date" value={own.to} max={latest} required onInput={(event) => change({ to: event.currentTarget.value })} />
        </div>
      )}
      {isWrong && <p class="range-wrong small" role="alert">{t.wrongRange}</p>}
    </div>
  );
}

// Usage by day and by model, of one user or of all.
import type { ModelSpending } from "@ai-chat-platform/client/wire";
import { useMemo, useState } from "preact/hooks";
import { count, money, percent } from "../platform/format";
import { Plot } from "../ui/plot";
import { daysBetween } from "../ui/plot_data";
import { byModel, colourOf } from "./days";
import { words } from "./words";

interface Spent {
  range: { from: string; to: string };
  models: readonly ModelSpending[];
  days: readonly { date: string; models: readonly ModelSpending[] }[];
}

const MEASURES = {
  cost: { value: (spending: ModelSpending) => Number(spending.cost), format: money },
  tokens: { value: (spending: ModelSpending) => spending.tokens, format: count },
  calls: { value: (spending: ModelSpending) => spending.model_calls, format: count },
} as const;
type Measure = keyof typeof MEASURES;

export function UsageByDay({ usage }: { usage: Spent }) {
  const t = words();
  const [measure, setMeasure] = useState<Measure>("cost");
  const { value, format } = MEASURES[measure];
  const { from, to } = usage.range;
  const days = useMemo(() => daysBetween(from, to), [from, to]);
  const series = useMemo(() => byModel(days, usage.days, usage.models, value), [days, usage, value]);
  const names = { cost: t.cost, tokens: t.tokensWord, calls: t.calls };
  return (
    <section class="card stack">
      <div class="row apart">
        <h2>{t.byDay}</h2>
        <div class="range-presets" role="group" aria-label={t.show}>
          {(Object.keys(MEASURES) as Measure[]).map((name) => (
            <button key={name} type="button" class="range-preset" aria-pressed={name === measure} onClick={() => setMeasure(name)}>{names[name]}</button>
          ))}
        </div>
      </div>
      <Plot title={names[measure]} days={days} series={series} format={format} />
    </section>
  );
}

export function UsageByModel({ models }: { models: readonly ModelSpending[] }) {
  const t = words();
  const all = models.reduce((sum, { cost }) => sum + Number(cost), 0);
  return (
    <section class="card stack">
      <h2>{t.byModel}</h2>
      <div class="table" tabIndex={0} role="region" aria-label={t.byModel}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t.model}</th>
              <th scope="col" class="number">{t.cost}</th>
              <th scope="col">{t.share}</th>
              <th scope="col" class="number">{t.calls}</th>
              <th scope="col" class="number">{t.tokensWord}</th>
              <th scope="col" class="number">{t.prompt}</th>
              <th scope="col" class="number">{t.cached}</th>
              <th scope="col" class="number">{t.completion}</th>
              <th scope="col" class="number">{t.reasoning}</th>
            </tr>
          </thead>
          <tbody>
            {models.map((spending, index) => {
              const share = all > 0 ? Number(spending.cost) / all : 0;
              return (
                <tr key={spending.model}>
                  <th scope="row" class="model"><span class={`swatch ${colourOf(index)}`} /> {spending.model}</th>
                  <td class="number">{money(spending.cost)}</td>
                  <td>
                    <span class="share">
                      <span class="share-bar"><span class={colourOf(index)} style={{ width: `${share * 100}%` }} /></span>
                      <span class="number">{percent(share)}</span>
                    </span>
                  </td>
                  <td class="number">{count(spending.model_calls)}</td>
                  <td class="number">{count(spending.tokens)}</td>
                  <td class="number">{count(spending.prompt_tokens)}</td>
                  <td class="number">{count(spending.cached_tokens)}</td>
                  <td class="number">{count(spending.completion_tokens)}</td>
                  <td class="number">{count(spending.reasoning_tokens)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

// The usage of all users together: top figures, plots by day and model, a file for a spreadsheet.
import "../usage/usage.css";
import type { UsageOfAll as Usage } from "@ai-chat-platform/client/wire";
import { get } from "../platform/api";
import { count, money } from "../platform/format";
import { useResource } from "../ui/resource";
import { Empty, Loaded } from "../ui/states";
import { UsageByDay, UsageByModel } from "../usage/charts";
import { RangeChooser, useRange } from "../usage/range";
import { CsvButton } from "../usage/usage";
import { words } from "./usage_words";

export function UsageOfAll() {
  const t = words();
  const range = useRange();
  const { from, to: until } = range;
  const usage = useResource(() => get<Usage>("admin/usage", { from, to: until }), [from, until]);
  return (
    <div class="stack usage">
      <div class="row apart">
        <RangeChooser range={range} />
        <CsvButton path="admin/usage" from={from} to={until} />
      </div>
      <Loaded from={usage}>
        {(found) => (found.models.length || found.range.messages ? (
          <>
            <Figures usage={found} />
            {found.models.length > 0 && <UsageByDay usage={found} />}
            {found.models.length > 0 && <UsageByModel models={found.models} />}
            <p class="small soft">{t.note}</p>
          </>
        ) : <div class="card"><Empty icon="usage" title={t.empty}>{t.emptyMore}</Empty></div>)}
      </Loaded>
    </div>
  );
}

function Figures({ usage: { range, days } }: { usage: Usage }) {
  const t = words();
  const busiest = Math.max(0, ...days.map(({ users }) => users));
  const background = Number(range.background.cost) > 0 ? t.background(money(range.background.cost)) : null;
  return (
    <div class="figures-of-all">
      <Figure name={t.cost} value={money(range.cost)} more={background} />
      <Figure name={t.messages} value={count(range.messages)} />
      <Figure name={t.tokens} value={count(range.tokens)} />
      <Figure name={t.users} value={count(busiest)} more={t.busiest} />
    </div>
  );
}

function Figure({ name, value, more }: { name: string; value: string; more?: string | null }) {
  return (
    <section class="card stack tight" aria-label={name}>
      <h2 class="figure-name">{name}</h2>
      <strong class="figure-sum number">{value}</strong>
      {more && <span class="small soft">{more}</span>}
    </section>
  );
}

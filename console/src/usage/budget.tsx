// A user's budget: how much of it is spent, when it starts again, and what the pace so far leads to.
import type { Budget, Projection } from "@ai-chat-platform/client/wire";
import { dayAndMonth, money } from "../platform/format";
import { Bar } from "../ui/bar";
import { reachedAt } from "./days";
import { words } from "./words";

export function BudgetBar({ budget, projection }: { budget: Budget | null; projection?: Projection | null | undefined }) {
  const t = words();
  const forecast = projection && Number(projection.cost) > 0 && t.forecast(money(Number(projection.cost).toFixed(2)), dayAndMonth(projection.until));
  if (!budget) return <p class="soft">{t.noLimit} {forecast}</p>;
  const { limit, spent, remaining, resets_at } = budget;
  const isUsedUp = limit !== null && Number(spent) >= Number(limit);
  const reached = limit !== null && projection ? reachedAt({ spent, limit }, projection, Date.now()) : null;
  return (
    <div class="stack tight">
      <div class="row apart">
        <strong class="number">{limit === null ? t.spent(money(spent)) : t.spentOf(money(spent), money(limit))}</strong>
        {remaining !== null && !isUsedUp && <span class="soft number">{t.left(money(remaining))}</span>}
      </div>
      {limit !== null && <Bar label={t.budget} text={t.spentOf(money(spent), money(limit))} value={Number(spent)} max={Number(limit)} />}
      <p class="small soft">
        {limit === null && `${t.noLimit} `}
        {isUsedUp && <strong>{t.usedUp} </strong>}
        {reached && <strong>{t.reachedOn(dayAndMonth(reached))} </strong>}
        {!reached && !isUsedUp && forecast && `${forecast} `}
        {resets_at && t.resets(dayAndMonth(resets_at))}
      </p>
    </div>
  );
}

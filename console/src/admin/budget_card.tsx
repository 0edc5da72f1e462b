// What the user has spent of the budget, the limits, and the buttons that change them.
import type { AdminUserDetails, Plans } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { get } from "../platform/api";
import { ago, count, moment, money } from "../platform/format";
import { Bar } from "../ui/bar";
import { Button } from "../ui/button";
import { useResource } from "../ui/resource";
import { Notice, Problem } from "../ui/states";
import { LimitsForm } from "./limits_form";
import { PlanForm } from "./plan_form";
import { periodText } from "./period";
import { words } from "./user_words";
import { words as shared } from "./words";

export function BudgetCard({ user, onChange }: { user: AdminUserDetails; onChange: () => void }) {
  const t = words();
  const plans = useResource(() => get<Plans>("admin/plans"), []);
  const [edits, setEdits] = useState<"limits" | "plan" | null>(null);
  const { limits } = user;
  const close = () => setEdits(null);
  const hasOtherPlan = Object.keys(plans.data?.plans ?? {}).some((name) => name !== user.plan);
  return (
    <section class="card stack">
      <h2>{t.budget}</h2>
      <Spending user={user} />
      {limits ? (
        <dl class="facts">
          <dt>{t.plan}</dt><dd>{user.plan ?? t.ownLimits}</dd>
          <dt>{t.period}</dt><dd>{periodText(limits.period)}</dd>
          <dt>{t.tokens}</dt><dd>{limits.tokens_per_minute === null ? shared().unlimited : count(limits.tokens_per_minute)}</dd>
          <dt>{t.requests}</dt><dd>{limits.requests_per_minute === null ? shared().unlimited : count(limits.requests_per_minute)}</dd>
          <dt>{t.models}</dt><dd>{limits.models.length ? limits.models.join(", ") : t.allModels}</dd>
        </dl>
      ) : <Notice kind="warn">{t.limitsUnknown}</Notice>}
      {plans.error && <Problem error={plans.error} onRetry={plans.reload} />}
      <div class="row">
        <Button kind="primary" icon="edit" disabled={!limits} onClick={() => setEdits("limits")}>{t.changeBudget}</Button>
        {hasOtherPlan && <Button onClick={() => setEdits("plan")}>{t.changePlan}</Button>}
      </div>
      {edits === "limits" && limits && <LimitsForm user={user} limits={limits} onClose={close} onDone={onChange} />}
      {edits === "plan" && plans.data && <PlanForm user={user} plans={plans.data} onClose={close} onDone={onChange} />}
    </section>
  );
}

function Spending({ user }: { user: AdminUserDetails }) {
  const t = words();
  const { budget } = user;
  if (!budget) return user.limits && <p>{t.noBudget}</p>;
  if (budget.limit === null) return <p>{t.spentNoLimit(money(budget.spent))}</p>;
  const text = t.spentOf(money(budget.spent), money(budget.limit));
  const isUsedUp = Number(budget.spent) >= Number(budget.limit);
  return (
    <div class="stack tight">
      <div class="row apart"><strong>{text}</strong>{budget.remaining && <span class="soft">{t.left(money(budget.remaining))}</span>}</div>
      <Bar label={t.budget} text={text} value={Number(budget.spent)} max={Number(budget.limit)} />
      <span class="small soft">{budget.resets_at ? <time dateTime={budget.resets_at} title={moment(budget.resets_at)}>{t.resets(ago(budget.resets_at))}</time> : t.neverResets}</span>
      {isUsedUp && <Notice kind="bad">{t.usedUp}</Notice>}
    </div>
  );
}

// The dialog that changes a user's budget, and behind a fold the other limits.
import type { AdminPlan, AdminUserDetails, PlanFields } from "@ai-chat-platform/client/wire";
import { useEffect, useRef, useState } from "preact/hooks";
import { about } from "../platform/about";
import { send } from "../platform/api";
import { money } from "../platform/format";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Field, Select, TextArea } from "../ui/field";
import { Form } from "../ui/form";
import { Notice } from "../ui/states";
import { announce } from "../ui/toast";
import { words as uiWords } from "../ui/words";
import { changeOf, type LimitsText, problemsOf, textOf } from "./limits";
import { words } from "./limits_words";
import { periodText } from "./period";

const OTHER = "other";

export function LimitsForm({ user, limits, onClose, onDone }: { user: AdminUserDetails; limits: PlanFields; onClose: () => void; onDone: () => void }) {
  const t = words();
  const [text, setText] = useState(() => textOf(limits));
  const [attempts, setAttempts] = useState(0); // what is wrong is said after the first one
  const fields = useRef<HTMLDivElement>(null);
  const agentModel = about.value?.model.name;
  const problems = problemsOf(text, agentModel);
  const sentences = { amount: t.amount, digits: t.digits, period: t.periodWrong, count: t.count, models: t.modelsWrong, modelMissing: t.modelMissing(agentModel ?? "") };
  const wrong = (field: keyof LimitsText) => (attempts && problems[field] ? sentences[problems[field]] : null);
  const set = (field: keyof LimitsText) => (event: { currentTarget: { value: string } }) => setText({ ...text, [field]: event.currentTarget.value });
  useEffect(() => fields.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus(), [attempts]);

  const save = async () => {
    setAttempts(attempts + 1);
    if (Object.keys(problems).length > 0) return;
    const change = changeOf(text, limits);
    const isChanged = Object.keys(change).length > 0;
    if (isChanged) await send<AdminPlan>("PATCH", `admin/users/${user.id}/plan`, change);
    announce(isChanged ? t.saved : t.unchanged);
    if (isChanged) onDone();
    onClose();
  };
  return (
    <Dialog title={t.title} onClose={onClose}>
      <Form onSubmit={save} submit={uiWords().save} beside={<Button onClick={onClose}>{uiWords().cancel}</Button>}>
        {() => (
          <div class="stack" ref={fields}>
            <Field label={t.budget} inputMode="decimal" autoFocus autoComplete="off" value={text.budget} wrong={wrong("budget")} hint={t.budgetHint(money(user.budget?.spent ?? user.total.cost))} onInput={set("budget")} />
            <Period value={text.period} now={limits.period} wrong={wrong("period")} onChange={(period) => setText({ ...text, period })} />
            <details open={attempts > 0 && !!(problems.tokens ?? problems.requests ?? problems.models)}>
              <summary>{t.more}</summary>
              <div class="stack">
                <Field label={t.tokens} inputMode="numeric" autoComplete="off" value={text.tokens} wrong={wrong("tokens")} hint={t.emptyNoLimit} onInput={set("tokens")} />
                <Field label={t.requests} inputMode="numeric" autoComplete="off" value={text.requests} wrong={wrong("requests")} hint={t.emptyNoLimit} onInput={set("requests")} />
                <TextArea label={t.models} rows={3} spellcheck={false} value={text.models} wrong={wrong("models")} hint={agentModel ? t.modelsHint(agentModel) : t.modelsHintUnknown} onInput={set("models")} />
              </div>
            </details>
            <Notice>{t.effect}{user.plan && ` ${t.noPlanAnyMore(user.plan)}`}</Notice>
          </div>
        )}
      </Form>
    </Dialog>
  );
}

function Period({ value, now, wrong, onChange }: { value: string; now: string | null; wrong: string | null; onChange: (period: string) => void }) {
  const t = words();
  const [isOther, setOther] = useState(false);
  const usual = ["", "1d", "7d", now === "30d" ? "30d" : "1mo"];
  const known = now !== null && !usual.includes(now) ? [...usual, now] : usual;
  return (
    <>
      <Select
        label={t.period}
        value={isOther ? OTHER : value}
        options={[...known.map((period) => [period, periodText(period || null)] as const), [OTHER, t.otherPeriod]]}
        onChoose={(chosen) => {
          setOther(chosen === OTHER);
          if (chosen !== OTHER) onChange(chosen);
        }}
      />
      {isOther && <Field label={t.periodText} value={value} autoComplete="off" wrong={wrong} hint={t.periodHint} onInput={(event) => onChange(event.currentTarget.value)} />}
    </>
  );
}

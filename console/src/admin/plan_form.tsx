// The dialog that gives a user one of the named plans.
import type { AdminPlan, AdminUserDetails, PlanFields, Plans } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { send } from "../platform/api";
import { count, money } from "../platform/format";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Form } from "../ui/form";
import { Notice } from "../ui/states";
import { announce } from "../ui/toast";
import { words as uiWords } from "../ui/words";
import { Choice } from "./choice";
import { words } from "./limits_words";
import { periodText } from "./period";
import { words as userWords } from "./user_words";
import { words as shared } from "./words";

export function PlanForm({ user, plans, onClose, onDone }: { user: AdminUserDetails; plans: Plans; onClose: () => void; onDone: () => void }) {
  const t = words();
  const named = Object.entries(plans.plans);
  const [chosen, setChosen] = useState(named.find(([name]) => name !== user.plan)?.[0] ?? plans.default);
  const give = async () => {
    await send<AdminPlan>("PATCH", `admin/users/${user.id}/plan`, { name: chosen });
    announce(t.given(chosen));
    onDone();
    onClose();
  };
  return (
    <Dialog title={t.planTitle} onClose={onClose}>
      <Form onSubmit={give} submit={t.give} beside={<Button onClick={onClose}>{uiWords().cancel}</Button>}>
        {() => (
          <>
            <Choice legend={t.plan} chosen={chosen} onChoose={setChosen} options={named.map(([name, plan]) => [name, name === user.plan ? `${name} (${t.current})` : name, summary(plan)])} />
            <Notice>{t.effect}</Notice>
          </>
        )}
      </Form>
    </Dialog>
  );
}

/** "$20.00 · Every month, on the 1st · Tokens a minute: 90,000". */
function summary(plan: PlanFields): string {
  const t = userWords();
  return [
    plan.budget === null ? shared().unlimited : money(plan.budget),
    plan.budget !== null && periodText(plan.period),
    plan.tokens_per_minute !== null && `${t.tokens}: ${count(plan.tokens_per_minute)}`,
    plan.requests_per_minute !== null && `${t.requests}: ${count(plan.requests_per_minute)}`,
    plan.models.length > 0 && plan.models.join(", "),
  ].filter(Boolean).join(" · ");
}

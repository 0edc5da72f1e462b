// Above the composer: what stands between the user and an answer. Nothing, mostly.
import { signal, useComputed } from "@preact/signals";
import { chat, conversation } from "../platform/conversation";
import { money, percent } from "../platform/format";
import { sentence } from "../platform/problem_words";
import { signOut } from "../platform/session";
import { Button } from "../ui/button";
import { Notice } from "../ui/states";
import { words } from "./words";

const dismissed = signal<string | null>(null);

export function Standing() {
  const t = words();
  const connection = useComputed(() => conversation.value.connection).value;
  const error = useComputed(() => conversation.value.error).value;
  const agent = useComputed(() => conversation.value.agent).value;
  const budget = useComputed(() => conversation.value.budget).value;
  const userId = useComputed(() => conversation.value.userId).value;
  if (connection === "closed") {
    return (
      <div role="alert">
        <Notice kind="bad">
          <div class="row apart">
            <span>{error ? sentence(error) : t.closed}</span>
            <span class="row">
              <Button small icon="retry" onClick={() => chat.value?.reconnect()}>{t.connectAgain}</Button>
              <Button small onClick={() => void signOut()}>{t.signInAgain}</Button>
            </span>
          </div>
        </Notice>
      </div>
    );
  }
  if (agent.status === "failed" || agent.status === "blocked" || agent.status === "deleting") {
    const what = { failed: t.agentFailed, blocked: t.agentBlocked, deleting: t.agentDeleting }[agent.status];
    return <div role="status"><Notice kind="bad">{what} {agent.reason}</Notice></div>;
  }
  if (connection === "offline") return <div role="status"><Notice kind="warn">{t.offline}</Notice></div>;
  if (agent.status === "provisioning") {
    return <div class="notice" role="status"><span class="spinner" /><div class="grow">{agent.reason ?? t.provisioning}</div></div>;
  }
  if (budget) {
    const key = `${userId} budget ${budget.percent}`;
    return <Passing id={key} text={t.budget(percent(budget.percent / 100), money(budget.spent), money(budget.limit))} isWarning />;
  }
  return agent.reason ? <Passing id={`${userId} ${agent.reason}`} text={agent.reason} /> : null;
}

/** News that one may put away. */
function Passing({ id, text, isWarning }: { id: string; text: string; isWarning?: boolean }) {
  if (dismissed.value === id) return null;
  return (
    <div role="status">
      <Notice {...(isWarning && { kind: "warn" as const })}>
        <div class="row apart nowrap">
          <span>{text}</span>
          <Button kind="plain" small icon="close" label={words().dismiss} onClick={() => (dismissed.value = id)} />
        </div>
      </Notice>
    </div>
  );
}

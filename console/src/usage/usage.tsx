// What the user's messages cost: the budget, today, the chosen days as plots, and a file for a spreadsheet.
import "./usage.css";
import type { UserUsage } from "@ai-chat-platform/client/wire";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { download, get, withQuery } from "../platform/api";
import { chat } from "../platform/conversation";
import { money } from "../platform/format";
import { to } from "../platform/route";
import { Button } from "../ui/button";
import { useResource } from "../ui/resource";
import { Empty, Loaded, Problem } from "../ui/states";
import type { ChatError } from "@ai-chat-platform/client";
import { BudgetBar } from "./budget";
import { UsageByDay, UsageByModel } from "./charts";
import { RangeChooser, useRange } from "./range";
import { words } from "./words";

const SETTLE = 1_000; // milliseconds: charges that come together are read once

export default function Usage() {
  const t = words();
  const range = useRange();
  const { from, to: until } = range;
  const usage = useResource(() => get<UserUsage>("user/usage", { from, to: until }), [from, until]);
  const { reload } = usage;
  const open = chat.value;
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(reload, SETTLE);
    };
    const ends = open ? [open.on("usage.settled", soon), open.on("budget.warning", soon), open.on("turn.completed", soon)] : [];
    return () => {
      clearTimeout(timer);
      for (const end of ends) end();
    };
  }, [open, reload]);

  return (
    <div class="page">
      <div class="stack usage">
        <div class="row apart">
          <h1>{t.title}</h1>
          <CsvButton path="user/usage" from={from} to={until} />
        </div>
        <RangeChooser range={range} />
        <Loaded from={usage}>{(data) => <Figures usage={data} />}</Loaded>
      </div>
    </div>
  );
}

function Figures({ usage }: { usage: UserUsage }) {
  const t = words();
  const { today, range, total, budget, projection, models } = usage;
  const background = Number(range.background.cost) > 0 ? t.background(money(range.background.cost)) : null;
  return (
    <>
      <div class="figures">
        <section class="card stack tight figure-budget" aria-label={t.budget}>
          <h2 class="figure-name">{t.budget}</h2>
          <BudgetBar budget={budget} projection={projection} />
        </section>
        <Figure name={t.today} spending={today} />
        <Figure name={t.inRange} spending={range}>{background}</Figure>
        <Figure name={t.everything} spending={total} />
      </div>
      {models.length ? (
        <>
          <UsageByDay usage={usage} />
          <UsageByModel models={models} />
          <p class="small soft">{t.utc} {background && t.backgroundMeans}</p>
        </>
      ) : (
        <div class="card">
          <Empty icon="usage" title={t.noneYet}>
            <p>{t.noneYetText}</p>
            <a class="button" href={to("talk")}>{t.toChat}</a>
          </Empty>
        </div>
      )}
    </>
  );
}

/** One sum in large letters. */
export function Figure({ name, spending, children }: { name: string; spending: { cost: string; messages: number; tokens: number }; children?: ComponentChildren }) {
  const t = words();
  return (
    <section class="card stack tight" aria-label={name}>
      <h2 class="figure-name">{name}</h2>
      <strong class="figure-sum number">{money(spending.cost)}</strong>
      <span class="small soft figure-counts"><span>{t.messages(spending.messages)}</span><span>{t.tokens(spending.tokens)}</span></span>
      {children && <span class="small soft">{children}</span>}
    </section>
  );
}

/** Saves the usage of these days as a file with a row for each day and model. */
export function CsvButton({ path, from, to: until }: { path: string; from: string; to: string }) {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ChatError | null>(null);
  const save = async () => {
    setBusy(true);
    setError(null);
    await download(withQuery(path, { from, to: until }), `usage-${from}-${until}.csv`, "text/csv").catch(setError);
    setBusy(false);
  };
  return (
    <div class="stack tight">
      <Button small busy={isBusy} icon="download" onClick={() => void save()}>{words().csv}</Button>
      {error && <Problem error={error} />}
    </div>
  );
}

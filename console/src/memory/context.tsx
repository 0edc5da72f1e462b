// The context window as a bar: what the model sees when it answers, and how much room is left.
import type { Context } from "@ai-chat-platform/client/wire";
import { count, percent } from "../platform/format";
import { Bar } from "../ui/bar";
import { Button } from "../ui/button";
import { isReading, readMemory } from "./store";
import { words } from "./words";

export function ContextWindow({ context }: { context: Context }) {
  const t = words();
  const { window, used, system, blocks, tools, messages } = context;
  const parts = [
    [t.system, system],
    [t.blocksPart, blocks],
    [t.tools, tools],
    [t.messages, messages],
  ] as const;
  const text = t.used(count(used), count(window), percent(window ? used / window : 0));
  return (
    <section class="card stack tight memory-context" aria-label={t.context}>
      <div class="row apart">
        <h2>{t.context}</h2>
        <Button kind="plain" small icon="retry" label={t.refresh} busy={isReading.value} onClick={() => void readMemory()} />
      </div>
      <p class="small soft">{t.contextLead}</p>
      <strong class="number">{text}</strong>
      <Bar label={t.context} text={text} value={used} max={window} parts={parts.map(([, tokens]) => tokens)} />
      <dl class="legend">
        {parts.map(([name, tokens], index) => (
          <div key={name}>
            <dt><span class={`swatch colour-${index + 1}`} /> {name}</dt>
            <dd class="number">{count(tokens)}</dd>
          </div>
        ))}
        <div>
          <dt><span class="swatch free" /> {t.free}</dt>
          <dd class="number">{count(Math.max(window - used, 0))}</dd>
        </div>
      </dl>
      <p class="small soft">{t.whenFull}</p>
    </section>
  );
}

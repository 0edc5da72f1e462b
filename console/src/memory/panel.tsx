// The agent's memory: the context window, the blocks that are always in it, and what is stored for later. Used beside the
// conversation and as a page of its own; it is laid out by its own width.
import "./memory.css";
import { useComputed } from "@preact/signals";
import { conversation } from "../platform/conversation";
import { Empty, Notice, Problem, Waiting } from "../ui/states";
import { BlockCard, nameOf } from "./block";
import { ContextWindow } from "./context";
import { Passages } from "./passages";
import { added, changes, forgetChanges, memory, problem, readMemory, useMemory } from "./store";
import { words } from "./words";

export default function MemoryPanel() {
  useMemory();
  const t = words();
  const shown = memory.value;
  return (
    <div class="memory">
      <div class="memory-state stack tight">
        <State />
      </div>
      {shown && (
        <div class="memory-parts">
          <div class="stack">
            <section class="card stack" aria-label={t.blocks}>
              <div class="stack tight">
                <h2>{t.blocks}</h2>
                <p class="small soft">{t.blocksLead}</p>
              </div>
              {shown.blocks.map((block) => (
                <BlockCard key={block.label} block={block} before={changes.value.get(block.label)} onSeen={forgetChanges} />
              ))}
            </section>
          </div>
          <div class="stack">
            <ContextWindow context={shown.context} />
            <Passages newest={shown.archival} />
          </div>
        </div>
      )}
      <Aloud />
    </div>
  );
}

/** Why there is no memory to show, or none that is up to date. */
function State() {
  const t = words();
  const agent = useComputed(() => conversation.value.agent).value;
  const error = problem.value;
  if (agent.status === "blocked" || agent.status === "deleting") return <Empty icon="memory" title={t.closed}>{agent.reason && <p>{agent.reason}</p>}</Empty>;
  if (agent.status === "provisioning") return <Waiting>{t.making}</Waiting>;
  if (agent.status === "failed") return <Notice kind="bad">{agent.reason ?? t.notReady}</Notice>;
  if (error) {
    return (
      <>
        <Problem error={error} onRetry={() => void readMemory()} />
        {error.retryable && <p class="small soft">{t.tryingAgain}</p>}
      </>
    );
  }
  return memory.value ? null : <Waiting />;
}

/** Says what changed, for those who do not see it. */
function Aloud() {
  const t = words();
  const names = (memory.value?.blocks ?? []).filter(({ label }) => changes.value.has(label)).map((block) => nameOf(block).name);
  const said = [names.length > 0 && t.changedAloud(names.join(", ")), added.value.size > 0 && t.addedAloud].filter(Boolean).join(" ");
  return <p class="only-read" role="status" aria-live="polite">{said}</p>;
}

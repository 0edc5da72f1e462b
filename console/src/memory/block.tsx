// One memory block: its text, how full it is, what the last turn changed in it; and the form that rewrites it.
import type { ChatError } from "@ai-chat-platform/client";
import type { Block } from "@ai-chat-platform/client/wire";
import { useComputed } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { send } from "../platform/api";
import { conversation } from "../platform/conversation";
import { count } from "../platform/format";
import { Bar } from "../ui/bar";
import { Button } from "../ui/button";
import { TextArea } from "../ui/field";
import { Notice, Problem } from "../ui/states";
import { announce } from "../ui/toast";
import { words as commonWords } from "../ui/words";
import { wordDiff } from "./diff";
import { adoptBlock, problem, readMemory } from "./store";
import { words } from "./words";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const SCROLLS = 1_200; // characters: a longer text scrolls in its own box

/** The block's name and description for people. Blocks that every agent has are described in the user's language. */
export function nameOf({ label, description }: Pick<Block, "label" | "description">): { name: string; lead: string | null } {
  const t = words();
  if (label === "human") return { name: t.human, lead: t.humanLead };
  if (label === "persona") return { name: t.persona, lead: t.personaLead };
  return { name: label, lead: description };
}

export function BlockCard({ block, before, onSeen }: { block: Block; before: string | undefined; onSeen: () => void }) {
  const t = words();
  const [isEdited, setEdited] = useState(false);
  const card = useRef<HTMLElement>(null);
  const { name, lead } = nameOf(block);
  const isChanged = before !== undefined;
  useEffect(() => {
    if (isChanged) card.current?.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  }, [isChanged]);
  const close = () => {
    setEdited(false);
    setTimeout(() => card.current?.querySelector<HTMLElement>("button")?.focus());
  };
  return (
    <article class="memory-block stack tight" aria-label={name} ref={card} data-changed={isChanged}>
      <div class="row apart">
        <h3>{name}</h3>
        {isChanged && <span class="badge good memory-changed">{t.changed}</span>}
        {!isEdited && <Button kind="plain" small icon="edit" label={t.editBlock(name)} onClick={() => setEdited(true)} />}
      </div>
      {lead && <p class="small soft">{lead}</p>}
      {isEdited ? (
        <BlockForm block={block} name={name} onClose={close} />
      ) : (
        <>
          <div class="memory-text" dir="auto" tabIndex={block.value.length > SCROLLS ? 0 : undefined}>
            {isChanged ? <Changes before={before} after={block.value} /> : block.value || <span class="soft">{t.nothingNoted}</span>}
          </div>
          <div class="row apart">
            <Fullness used={block.value.length} limit={block.limit} name={name} />
            {isChanged && <Button kind="plain" small icon="check" onClick={onSeen}>{t.hideMarks}</Button>}
          </div>
        </>
      )}
    </article>
  );
}

function Fullness({ used, limit, name }: { used: number; limit: number; name: string }) {
  const text = words().characters(count(used), count(limit));
  return (
    <div class="fullness">
      <Bar thin label={name} text={text} value={used} max={limit} />
      <span class="small soft number">{text}</span>
    </div>
  );
}

/** Added words are marked, removed ones struck through. */
export function Changes({ before, after }: { before: string; after: string }) {
  const t = words();
  return (
    <>
      {wordDiff(before, after).map(({ kind, text }, index) => {
        if (kind === "same") return text;
        const aloud = <span class="only-read">{kind === "added" ? t.added : t.removed} </span>;
        return kind === "added" ? <ins key={index}>{aloud}{text}</ins> : <del key={index}>{aloud}{text}</del>;
      })}
    </>
  );
}

function BlockForm({ block, name, onClose }: { block: Block; name: string; onClose: () => void }) {
  const t = words();
  const [base, setBase] = useState(block.value); // what the edit began with
  const [draft, setDraft] = useState(block.value);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ChatError | null>(null);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => form.current?.querySelector("textarea")?.focus(), []);
  const isAnswering = useComputed(() => conversation.value.reply !== null).value;
  const isConflict = block.value !== base;
  const over = draft.length - block.limit;
  const save = async () => {
    setBusy(true);
    setError(null);
    try {
      const found = await readMemory({ isOwn: true }); // the agent may have written since
      if (!found) return setError(problem.value);
      const now = found.blocks.find(({ label }) => label === block.label);
      if (now && now.value !== base) return; // the block that is shown next says so
      adoptBlock(await send<Block>("PATCH", `agent/memory/${encodeURIComponent(block.label)}`, { value: draft }));
      announce(t.saved);
      onClose();
      void readMemory({ isOwn: true }); // the context window
    } catch (failure) {
      setError(failure as ChatError);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form ref={form} class="stack tight" onSubmit={(event) => (event.preventDefault(), void save())}>
      <TextArea
        label={name}
        class="input memory-input"
        dir="auto"
        rows={Math.min(Math.max(draft.split("\n").length + 1, 5), 16)}
        value={draft}
        hint={t.characters(count(draft.length), count(block.limit))}
        wrong={over > 0 ? t.tooLong(over) : null}
        onInput={(event) => setDraft(event.currentTarget.value)}
      />
      {isConflict && (
        <div class="notice warn" role="alert">
          <div class="grow stack tight">
            <span>{t.conflict}</span>
            <div class="memory-text" dir="auto"><Changes before={base} after={block.value} /></div>
            <div class="row">
              <Button small onClick={() => (setDraft(block.value), setBase(block.value))}>{t.useTheirs}</Button>
              <Button small onClick={() => setBase(block.value)}>{t.keepMine}</Button>
            </div>
          </div>
        </div>
      )}
      {isAnswering && <Notice>{t.busy}</Notice>}
      {error && <Problem error={error} onRetry={error.retryable ? () => void save() : undefined} />}
      <div class="row">
        <Button type="submit" kind="primary" small busy={isBusy} disabled={over > 0 || isAnswering || isConflict || draft === base}>{commonWords().save}</Button>
        <Button small onClick={onClose}>{commonWords().cancel}</Button>
      </div>
    </form>
  );
}

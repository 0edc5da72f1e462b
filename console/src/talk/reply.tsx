// A reply: its reasoning, what the agent did with its tools, the text, how it ended, and what it cost.
import type { ChatError, ChatMessage, ToolCall, Turn } from "@ai-chat-platform/client";
import { useRef, useState } from "preact/hooks";
import { get } from "../platform/api";
import { money, seconds } from "../platform/format";
import { sentence } from "../platform/problem_words";
import { Button } from "../ui/button";
import { copy } from "../ui/clipboard";
import { Icon } from "../ui/icon";
import { Notice, Problem } from "../ui/states";
import { announce } from "../ui/toast";
import { retry } from "./commands";
import { Markdown } from "./markdown";
import { memo } from "./memo";
import { firstWords } from "./timing";
import { deedOf } from "./tools";
import { When } from "./when";
import { words } from "./words";

/** `isPast`: shown out of its conversation, as the surroundings of a search hit; nothing can be done with it. */
export const Reply = memo<{ message: ChatMessage; isPast: boolean; isFound: boolean }>(({ message, isPast, isFound }) => {
  const t = words();
  const { text, status, tools, reasoning, error, note, canRetry } = message;
  const isStreaming = status === "streaming";
  const again = canRetry && !isPast ? () => retry(message) : undefined;
  const isQuiet = isStreaming && !text && !tools.some((tool) => tool.status === "running") && !reasoning;
  return (
    <article class="reply" aria-label={t.agent} aria-busy={isStreaming} data-status={status} data-found={isFound || undefined} tabIndex={isFound ? -1 : undefined}>
      {reasoning && <Reasoning text={reasoning} isRunning={isStreaming && !text} />}
      {tools.length > 0 && <ul class="tools">{tools.map((tool) => <Tool key={tool.id} tool={tool} isOver={!isStreaming} />)}</ul>}
      {text && <Markdown text={text} isGrowing={isStreaming} />}
      {note && <Notice>{note}</Notice>}
      {isQuiet && <p class="dots" role="img" aria-label={t.answering}><i /><i /><i /></p>}
      {status === "failed" && error && <Problem error={error} onRetry={again} />}
      {status === "partial" && (
        <p class="row ended">
          <span class="badge"><Icon name="stop" />{t.stopped}</span>
          {again && <Button small icon="retry" onClick={again}>{t.again}</Button>}
        </p>
      )}
      {!isStreaming && <Footer message={message} />}
    </article>
  );
});

function Reasoning({ text, isRunning }: { text: string; isRunning: boolean }) {
  const t = words();
  return (
    <details class="fold">
      <summary>{isRunning ? <><span class="spinner" />{t.thinking}</> : t.thoughts}</summary>
      <p class="plain soft" dir="auto">{text.trim()}</p>
    </details>
  );
}

function Tool({ tool, isOver }: { tool: ToolCall; isOver: boolean }) {
  const t = words();
  const { what, about, details, isMemory } = deedOf(tool);
  const isRunning = tool.status === "running";
  const state = { running: isOver ? t.toolStopped : t.toolRunning, error: t.toolFailed, denied: t.toolDenied, success: "" }[tool.status];
  return (
    <li>
      <details class="fold tool" data-status={tool.status}>
        <summary>
          {isRunning && !isOver ? <span class="spinner" /> : <Icon name={isMemory ? "memory" : "tool"} />}
          <span class="line"><strong>{what}</strong>{about && <>: <bdi>{about}</bdi></>}</span>
          {state && <span class={isRunning && !isOver ? "only-read" : "badge bad"}>{state}</span>}
        </summary>
        <p class="small soft">{t.arguments}: <code>{tool.name}</code></p>
        <pre dir="ltr" tabIndex={0} role="group" aria-label={t.arguments}>{details}</pre>
      </details>
    </li>
  );
}

/** Quiet: what the turn cost, and when it was. Older replies know their tokens when one asks. */
function Footer({ message }: { message: ChatMessage }) {
  const t = words();
  const [turn, setTurn] = useState<Turn | null>(null);
  const { text, turnId, createdAt } = message;
  const usage = message.usage ?? turn?.usage;
  const cost = message.cost ?? turn?.cost;
  const costStatus = message.costStatus ?? turn?.cost_status;
  const first = turnId === null ? undefined : firstWords.value.get(turnId);
  const isEstimate = costStatus === "estimated";
  const foot = useRef<HTMLElement>(null);
  const show = (found: Turn) => {
    setTurn(found);
    foot.current?.focus(); // its button goes away
  };
  const ask = () => void get<Turn>(`chat/turns/${turnId}`).then(show, (failure: ChatError) => announce(sentence(failure)));
  return (
    <footer class="turn-foot" ref={foot} tabIndex={-1}>
      {text && <Button kind="plain" small icon="copy" label={t.copyMessage} onClick={() => void copy(text)} />}
      <When at={createdAt} />
      {cost != null && <span class="number">{isEstimate && "≈ "}{money(cost)}{isEstimate && <span class="only-read"> ({t.estimated})</span>}</span>}
      {costStatus === "written_off" && <span>{t.writtenOff}</span>}
      {usage && <span class="number">{t.tokens(usage.total_tokens)}</span>}
      {usage && <span class="number">{t.calls(usage.model_calls)}</span>}
      {first !== undefined && <span class="number">{t.firstWord(seconds(first))}</span>}
      {!usage && !turn && turnId && <Button kind="plain" small onClick={ask}>{t.turnDetails}</Button>}
    </footer>
  );
}

// The conversation, oldest first. All loaded turns are in the page, so that the browser's own search and screen readers find
// them; the browser lays out only those in sight (content-visibility in talk.css).
import type { ChatState, ChatTurn } from "@ai-chat-platform/client";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { chat, conversation } from "../platform/conversation";
import { Button } from "../ui/button";
import { Waiting } from "../ui/states";
import { Announcer } from "./announcer";
import { FirstRun } from "./first_run";
import { Grouping, keyOf } from "./grouping";
import { foundIn, type Hit, useHit } from "./hit";
import { memo } from "./memo";
import { useScroll } from "./scroll";
import { TurnView } from "./turn";
import { words } from "./words";

/** At most one rendering per frame, however fast the words come. */
export function useConversation(): ChatState {
  const [shown, setShown] = useState(conversation.peek());
  useEffect(() => {
    let frame = 0;
    const end = conversation.subscribe(() => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setShown(conversation.peek());
      });
    });
    return () => (end(), cancelAnimationFrame(frame));
  }, []);
  return shown;
}

/** `hit`: one of its messages that was searched for. `sent`: changes with each message that is sent here. */
export function ConversationLog({ hit, sent, onEnd }: { hit: Hit | null; sent: number; onEnd: () => void }) {
  const t = words();
  const { turns, messages, history } = useConversation();
  const { box, isAtEnd, fresh, toEnd, leave } = useScroll(messages);
  useLayoutEffect(() => (hit ? leave() : toEnd()), [sent, hit]);
  useHit(box, hit, true);
  useOlder(box, history.hasMore ? history.before : null);
  return (
    <div class="log-frame">
      <div class="log" ref={box} role="log" aria-live="off" aria-label={t.conversation} tabIndex={0}>
        <div class="turns">
          <div class="top">
            {history.isLoading ? (
              <Waiting>{turns.length ? t.loadingOlder : undefined}</Waiting>
            ) : history.hasMore ? (
              <Button small onClick={() => void chat.value?.loadOlder()}>{t.older}</Button>
            ) : (
              turns.length > 0 && <p class="small soft">{t.begin}</p>
            )}
          </div>
          {!turns.length && !history.isLoading && <FirstRun />}
          <Turns turns={turns} hit={hit} />
        </div>
      </div>
      {!isAtEnd && (
        <Button class="to-end" icon="down" onClick={() => (onEnd(), toEnd())} {...(fresh ? {} : { label: t.newest })}>{fresh ? t.newestWith(fresh) : null}</Button>
      )}
      <Announcer messages={messages} />
    </div>
  );
}

/** Turns in groups: a word that comes makes only the last group be compared. A turn stays in its group. */
function Turns({ turns, hit }: { turns: readonly ChatTurn[]; hit: Hit | null }) {
  const groups = useRef(new Grouping());
  return <>{groups.current.of(turns).map(({ key, members }) => <Group key={key} members={members} hit={hit} />)}</>;
}

const TURN = 14; // rem: the height of a turn that was never laid out, about

const Group = memo<{ members: readonly ChatTurn[]; hit: Hit | null }>(({ members, hit }) => (
  <div class="turn-group" style={{ containIntrinsicBlockSize: `auto ${members.length * TURN}rem` }}>
    {members.map((turn) => (
      <TurnView key={keyOf(turn)} turn={turn} found={foundIn(hit, turn.id)} />
    ))}
  </div>
));

const EARLY = 800; // px before the reader arrives
const AGAIN = 3000; // ms after which a load that failed is tried again

/** Load older messages when the beginning comes near. */
function useOlder(box: { current: Element | null }, next: string | null): void {
  useEffect(() => {
    const element = box.current!;
    const look = () => next !== null && element.scrollTop < EARLY && conversation.peek().connection === "online" && void chat.value?.loadOlder();
    look();
    element.addEventListener("scroll", look, { passive: true });
    const timer = setInterval(look, AGAIN);
    return () => (element.removeEventListener("scroll", look), clearInterval(timer));
  }, [next]);
}

// Where the conversation is scrolled to: it follows the newest words, unless the reader has gone up. Then what is in sight
// stays where it is: when turns above are laid out by the browser's scroll anchoring, when older ones are loaded from here.
import type { ChatMessage } from "@ai-chat-platform/client";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

const NEAR = 40; // px from the end that still count as the end

export function useScroll(messages: readonly ChatMessage[]) {
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const seen = useRef<string | null>(null);
  const isEmpty = useRef(true); // the first run is read from its top
  isEmpty.current = messages.length === 0;
  const [isAtEnd, setAtEnd] = useState(true);

  const at = useRef(0);
  const setFollowing = (isFollowing: boolean) => {
    follows.current = isFollowing;
    box.current!.style.overflowAnchor = isFollowing ? "none" : "auto"; // what follows needs no anchor, so that only the reader goes up
    setAtEnd(isFollowing);
  };
  const follow = () => {
    const element = box.current;
    if (!element || !follows.current || isEmpty.current) return;
    element.scrollTop = element.scrollHeight;
    at.current = element.scrollTop;
  };
  useEffect(() => {
    const element = box.current!;
    const scrolled = () => {
      const rest = element.scrollHeight - element.clientHeight - element.scrollTop;
      if (rest < NEAR) setFollowing(true);
      else if (element.scrollTop < at.current) setFollowing(false);
      at.current = element.scrollTop;
    };
    setFollowing(true);
    element.addEventListener("scroll", scrolled, { passive: true });
    const growth = new ResizeObserver(follow); // before the next picture, and after the layout of it
    growth.observe(element);
    growth.observe(element.firstElementChild!);
    return () => (element.removeEventListener("scroll", scrolled), growth.disconnect());
  }, []);
  useKeptPlace(box, messages[0]?.id);

  const last = messages.at(-1)?.id ?? null;
  if (isAtEnd || seen.current === null) seen.current = last;
  const fresh = messages.length - 1 - messages.findLastIndex(({ id }) => id === seen.current);
  const toEnd = () => {
    setFollowing(true);
    follow();
  };
  /** Stay where the reader is taken to. */
  const leave = () => setFollowing(false);
  return { box, isAtEnd, fresh, toEnd, leave };
}

/** When older turns come in above, what was in sight stays where it was. */
export function useKeptPlace(box: { current: HTMLElement | null }, first: string | undefined): void {
  const shown = useRef(first);
  const turn = shown.current !== first ? box.current?.querySelector(".turn") : null; // still the one that was first
  const before = turn?.getBoundingClientRect().top;
  shown.current = first;
  useLayoutEffect(() => {
    if (turn?.isConnected && before !== undefined) box.current!.scrollTop += turn.getBoundingClientRect().top - before;
  });
}

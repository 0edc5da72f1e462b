// A message that was searched for and opened, and how it is shown in its place.
import type { Message } from "@ai-chat-platform/client/wire";
import { useEffect } from "preact/hooks";
import { highlightIn, patternOf } from "./marks";

export interface Hit {
  message: Message;
  query: string;
}

/** Which message of a turn is the hit. */
export const foundIn = (hit: Hit | null, turnId: string | null) => (hit && hit.message.turn_id === turnId ? hit.message.role : null);

/** Bring the hit into sight, with its words marked, as soon as it `isThere`. */
export function useHit(box: { current: HTMLElement | null }, hit: Hit | null, isThere: boolean): void {
  useEffect(() => {
    if (!hit || !isThere) return;
    let end = () => {};
    let frames = 4; // turns on the way there are laid out as they come near, and change their height
    const bring = () => {
      const element = box.current?.querySelector<HTMLElement>("[data-found]");
      if (!element) return;
      element.scrollIntoView({ block: "center" });
      if (frames-- > 0) frame = requestAnimationFrame(bring);
      else {
        end = highlightIn(element, patternOf(hit.query));
        element.focus({ preventScroll: true });
      }
    };
    let frame = requestAnimationFrame(bring);
    return () => (cancelAnimationFrame(frame), end());
  }, [hit, isThere]);
}

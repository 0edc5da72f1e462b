// The conversation with the agent, with its memory beside it on wide windows.
import "./talk.css";
import { useEffect, useState } from "preact/hooks";
import { chat, conversation } from "../platform/conversation";
import { remember, remembered } from "../platform/preferences";
import { lazy } from "../ui/lazy";
import { Composer } from "./composer";
import { ConversationLog } from "./conversation_log";
import { Excerpt } from "./excerpt";
import { Header } from "./header";
import type { Hit } from "./hit";
import { Search } from "./search";
import { followTimes } from "./timing";
import { words } from "./words";

const MemoryPanel = lazy(() => import("../memory/panel"));

const wide = matchMedia("(min-width: 72rem)"); // as in talk.css
const isLoaded = ({ message }: Hit) => conversation.peek().turns.some(({ id }) => id === message.turn_id);

export default function Talk() {
  const t = words();
  const [isMemoryOpen, setMemoryOpen] = useState(remembered("memory", ["open", "closed"]) !== "closed");
  const isWide = useIsWide();
  const isShown = isMemoryOpen && isWide;
  const [sent, setSent] = useState(0);
  const [isSearching, setSearching] = useState(false);
  const [query, setQuery] = useState("");
  const [hit, setHit] = useState<(Hit & { isLoaded: boolean }) | null>(null);
  useEffect(() => (chat.value ? followTimes(chat.value) : undefined), [chat.value]);
  useSearchKey(() => setSearching(true));

  const toggleMemory = () => {
    setMemoryOpen(!isMemoryOpen);
    remember("memory", isMemoryOpen ? "closed" : "open");
  };
  const open = (found: Hit) => {
    setSearching(false);
    setHit({ ...found, isLoaded: isLoaded(found) });
  };
  const toNewest = () => setHit(null);
  return (
    <div class="talk" data-memory={isShown ? "open" : "closed"}>
      <section class="talk-column">
        <Header isMemoryOpen={isMemoryOpen} onSearch={() => setSearching(true)} onMemory={toggleMemory} />
        {hit && !hit.isLoaded ? <Excerpt hit={hit} onBack={toNewest} /> : <ConversationLog hit={hit} sent={sent} onEnd={toNewest} />}
        <Composer onSend={() => (toNewest(), setSent(sent + 1))} />
      </section>
      {isShown && <aside class="talk-memory" aria-label={t.memory}><MemoryPanel /></aside>}
      {isSearching && <Search query={query} onQuery={setQuery} onOpen={open} onClose={() => setSearching(false)} />}
    </div>
  );
}

/** Ctrl+K, or Cmd+K. */
function useSearchKey(onPress: () => void): void {
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.code !== "KeyK" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return;
      event.preventDefault();
      if (!document.querySelector("dialog[open]")) onPress();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

function useIsWide(): boolean {
  const [isWide, setWide] = useState(wide.matches);
  useEffect(() => {
    const change = () => setWide(wide.matches);
    wide.addEventListener("change", change);
    return () => wide.removeEventListener("change", change);
  }, []);
  return isWide;
}

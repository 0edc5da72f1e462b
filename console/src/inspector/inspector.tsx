// The wire as it is, for people who write clients or want to see the platform recover. Only in development.
import "./inspector.css";
import { useComputed } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { conversation } from "../platform/conversation";
import { cutLine, cutUntil, holder } from "../platform/wire_tap";
import { Button } from "../ui/button";
import { Connections } from "./connection_list";
import { Frames } from "./frames";
import { KillStream } from "./kill_stream";
import { TryIt } from "./try_it";
import { words } from "./words";

const HOLD = 5; // seconds

export default function Inspector() {
  const t = words();
  const connection = useComputed(() => conversation.value.connection).value;
  const who = holder.value ? t[holder.value] : connection === "online" ? t.stream : t.nobody;
  return (
    <div class="page">
      <div class="stack inspector">
        <div class="stack tight">
          <h1>{t.title}</h1>
          <p class="soft">{t.lead}</p>
        </div>
        <div class="actions">
          <CutLine isConnected={holder.value !== null && connection === "online"} />
          <KillStream />
        </div>
        <p class="small soft" role="status">{who}</p>
        <div class="inspector-pair">
          <TryIt />
          <Connections />
        </div>
        <Frames />
      </div>
    </div>
  );
}

function CutLine({ isConnected }: { isConnected: boolean }) {
  const t = words();
  const left = useSecondsUntil(cutUntil.value);
  return (
    <div class="action">
      <Button kind="danger" icon="wire" disabled={left > 0 || !isConnected} onClick={() => cutLine(HOLD)}>
        {left > 0 ? t.cutFor(left) : t.cut}
      </Button>
      <p class="small soft">{t.cutHint}</p>
    </div>
  );
}

function useSecondsUntil(time: number): number {
  const [, tick] = useState(0);
  useEffect(() => {
    if (!time) return;
    const timer = setInterval(() => tick((count) => count + 1), 500);
    return () => clearInterval(timer);
  }, [time]);
  return time ? Math.max(Math.ceil((time - Date.now()) / 1000), 1) : 0;
}

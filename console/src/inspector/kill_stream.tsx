// Breaks the server's connection to the agent service while a reply comes over it. Only servers in development can.
import type { ChatError } from "@ai-chat-platform/client";
import { useComputed } from "@preact/signals";
import { useState } from "preact/hooks";
import { send } from "../platform/api";
import { conversation } from "../platform/conversation";
import { Button } from "../ui/button";
import { Problem } from "../ui/states";
import { clock } from "./clock";
import { words } from "./words";

export function KillStream() {
  const t = words();
  const isReplying = useComputed(() => conversation.value.reply !== null).value;
  const [isBusy, setBusy] = useState(false);
  const [killedAt, setKilledAt] = useState<number | null>(null);
  const [error, setError] = useState<ChatError | null>(null);
  const kill = async () => {
    setBusy(true);
    setError(null);
    await send("POST", "development/break-stream").then(() => setKilledAt(Date.now()), setError);
    setBusy(false);
  };
  return (
    <div class="action">
      <Button kind="danger" icon="stop" busy={isBusy} disabled={!isReplying} onClick={() => void kill()}>{t.kill}</Button>
      <p class="small soft">{t.killHint}</p>
      <p class="small" role="status">{killedAt !== null && t.killed(clock(killedAt))}</p>
      {error && <Problem error={error} />}
    </div>
  );
}

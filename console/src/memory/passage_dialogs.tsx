// The dialogs that add, rewrite and remove a passage of the archival memory.
import type { ChatError } from "@ai-chat-platform/client";
import type { Passage } from "@ai-chat-platform/client/wire";
import { useState } from "preact/hooks";
import { send } from "../platform/api";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { TextArea } from "../ui/field";
import { Problem } from "../ui/states";
import { words as commonWords } from "../ui/words";
import { words } from "./words";

const PATH = "agent/memory/archival";

/** Without a passage it adds one. */
export function PassageDialog({ passage, onClose, onDone }: { passage: Passage | null; onClose: () => void; onDone: (passage: Passage) => void }) {
  const t = words();
  const [text, setText] = useState(passage?.text ?? "");
  const { run, isBusy, error } = useAction(async () => {
    const body = { text: text.trim() };
    onDone(passage ? await send<Passage>("PATCH", `${PATH}/${passage.id}`, body) : await send<Passage>("POST", PATH, body));
  });
  return (
    <Dialog title={passage ? t.editTitle : t.addTitle} onClose={onClose}>
      <form class="stack" onSubmit={(event) => (event.preventDefault(), run())}>
        <TextArea label={t.text} hint={t.addHint} dir="auto" autoFocus rows={6} maxLength={32_000} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        {error && <Problem error={error} />}
        <div class="row">
          <Button type="submit" kind="primary" busy={isBusy} disabled={!text.trim() || text === passage?.text}>{commonWords().save}</Button>
          <Button onClick={onClose}>{commonWords().cancel}</Button>
        </div>
      </form>
    </Dialog>
  );
}

export function ForgetDialog({ passage, onClose, onDone }: { passage: Passage; onClose: () => void; onDone: () => void }) {
  const t = words();
  const { run, isBusy, error } = useAction(async () => {
    await send("DELETE", `${PATH}/${passage.id}`).catch((failure: ChatError) => {
      if (failure.code !== "not_found") throw failure; // else it is gone already
    });
    onDone();
  });
  return (
    <Dialog title={t.forgetTitle} onClose={onClose}>
      <blockquote class="memory-text passage-quote" dir="auto">{passage.text}</blockquote>
      <p>{t.forgetText}</p>
      {error && <Problem error={error} />}
      <div class="row">
        <Button kind="danger" busy={isBusy} onClick={run}>{t.forget}</Button>
        <Button onClick={onClose}>{commonWords().cancel}</Button>
      </div>
    </Dialog>
  );
}

function useAction(action: () => Promise<void>) {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ChatError | null>(null);
  const run = () => {
    setBusy(true);
    setError(null);
    action().catch((failure: ChatError) => (setError(failure), setBusy(false)));
  };
  return { run, isBusy, error };
}

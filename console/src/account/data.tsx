// What is stored about the user: all of it as a file, or gone.
import { ChatError } from "@ai-chat-platform/client";
import { useState } from "preact/hooks";
import { download, send } from "../platform/api";
import { size } from "../platform/format";
import { farewell, signOut, user } from "../platform/session";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Field } from "../ui/field";
import { Form } from "../ui/form";
import { Password } from "../ui/password";
import { Problem } from "../ui/states";
import { words } from "./words";

export function Data() {
  const t = words();
  const [isDeleting, setDeleting] = useState(false);
  return (
    <div class="stack">
      <Export />
      <section class="card stack">
        <div>
          <h2>{t.delete}</h2>
          <p class="small soft">{t.deleteText}</p>
        </div>
        <div><Button kind="danger" icon="trash" onClick={() => setDeleting(true)}>{t.deleteButton}</Button></div>
      </section>
      {isDeleting && <Deletion onClose={() => setDeleting(false)} />}
    </div>
  );
}

function Export() {
  const t = words();
  const [state, setState] = useState<{ isBusy: boolean; bytes: number; error: ChatError | null }>({ isBusy: false, bytes: 0, error: null });
  const save = async () => {
    setState({ isBusy: true, bytes: 0, error: null });
    const name = `ai-chat-${new Date().toISOString().slice(0, 10)}.json`;
    try {
      await download("user/export", name, "application/json", (bytes) => setState({ isBusy: true, bytes, error: null }));
      setState((shown) => ({ ...shown, isBusy: false }));
    } catch (error) {
      setState(({ bytes }) => ({ isBusy: false, bytes: 0, error: bytes ? new ChatError("network", t.broken, { retryable: true }) : (error as ChatError) }));
    }
  };
  const { isBusy, bytes, error } = state;
  return (
    <section class="card stack">
      <div>
        <h2>{t.export}</h2>
        <p class="small soft">{t.exportText}</p>
      </div>
      {error && <Problem error={error} own={error.message === t.broken ? { network: t.broken } : {}} onRetry={error.retryable ? () => void save() : undefined} />}
      <div class="row">
        <Button icon="download" busy={isBusy} onClick={() => void save()}>{t.exportButton}</Button>
        <span class="small soft" role="status">{bytes > 0 && (isBusy ? t.exporting(size(bytes)) : t.exportDone(size(bytes)))}</span>
      </div>
    </section>
  );
}

function Deletion({ onClose }: { onClose: () => void }) {
  const t = words();
  const email = user.value?.email ?? "";
  const [isOther, setOther] = useState(false);
  const remove = async ({ address, current_password }: Record<string, string>) => {
    setOther(address!.toLowerCase() !== email.toLowerCase());
    if (address!.toLowerCase() !== email.toLowerCase()) return;
    farewell.value = "asked"; // the connections end before the answer is here
    try {
      const answer = await send<{ status: "deleting" } | null>("DELETE", "user", { current_password });
      farewell.value = answer ? "deleting" : "deleted";
    } catch (error) {
      farewell.value = null;
      throw error;
    }
    await signOut();
  };
  return (
    <Dialog title={t.delete} onClose={onClose}>
      <p>{t.deleteText}</p>
      <Form onSubmit={remove} submit={t.deleteForever} kind="danger" at={{ reauthentication_required: "current_password" }} own={{ reauthentication_required: t.wrongPassword }} beside={<Button kind="plain" onClick={onClose}>{t.cancel}</Button>}>
        {(wrong) => (
          <>
            <Field label={t.typeAddress(email)} name="address" autoComplete="off" spellcheck={false} required wrong={wrong("address") ?? (isOther ? t.notTheAddress : undefined)} />
            <Password label={t.currentPassword} name="current_password" wrong={wrong("current_password")} />
          </>
        )}
      </Form>
    </Dialog>
  );
}

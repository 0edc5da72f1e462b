// The dialogs that ask before something is done to a user. `onAnswer` does it, and throws what went wrong.
import type { AdminUserDetails } from "@ai-chat-platform/client/wire";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Field, TextArea } from "../ui/field";
import { Form } from "../ui/form";
import { words as uiWords } from "../ui/words";
import { words } from "./action_words";
import { Choice } from "./choice";

interface QuestionProps {
  title: string;
  /** What will happen. */
  text: string;
  /** The button's text. */
  yes: string;
  kind: "primary" | "danger";
  isReady?: boolean;
  onClose: () => void;
  onYes: () => Promise<void>;
  children?: ComponentChildren;
}

function Question({ title, text, yes, kind, isReady = true, onClose, onYes, children }: QuestionProps) {
  return (
    <Dialog title={title} onClose={onClose}>
      <Form submit={yes} kind={kind} disabled={!isReady} onSubmit={onYes} beside={<Button onClick={onClose}>{uiWords().cancel}</Button>}>
        {() => (
          <>
            <p>{text}</p>
            {children}
          </>
        )}
      </Form>
    </Dialog>
  );
}

interface Props {
  user: AdminUserDetails;
  onClose: () => void;
}

export function BlockQuestion({ user, onClose, onAnswer }: Props & { onAnswer: (reason: string) => Promise<void> }) {
  const t = words();
  const [reason, setReason] = useState("");
  return (
    <Question title={t.blockTitle} text={t.blockText} yes={t.block} kind="danger" onClose={onClose} onYes={() => onAnswer(reason.trim())}>
      <Who user={user} />
      <TextArea label={t.reason} hint={t.reasonHint} rows={2} maxLength={300} autoFocus value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
    </Question>
  );
}

export function AdminQuestion({ user, onClose, onAnswer }: Props & { onAnswer: () => Promise<void> }) {
  const t = words();
  const has = user.is_admin;
  return (
    <Question title={has ? t.removeAdminTitle : t.makeAdminTitle} text={has ? t.removeAdminText : t.makeAdminText} yes={has ? t.removeAdmin : t.makeAdmin} kind={has ? "danger" : "primary"} onClose={onClose} onYes={onAnswer}>
      <Who user={user} />
    </Question>
  );
}

export function RotateQuestion({ onClose, onAnswer }: { onClose: () => void; onAnswer: (atOnce: boolean) => Promise<void> }) {
  const t = words();
  const [when, setWhen] = useState<"gently" | "atOnce">("gently");
  return (
    <Question title={t.rotateTitle} text={t.rotateText} yes={t.rotateDo} kind="primary" onClose={onClose} onYes={() => onAnswer(when === "atOnce")}>
      <Choice legend={t.rotateWhen} chosen={when} onChoose={setWhen} options={[["gently", t.gently, t.gentlyHint], ["atOnce", t.atOnce, t.atOnceHint]]} />
    </Question>
  );
}

export function DeleteQuestion({ user, onClose, onAnswer }: Props & { onAnswer: () => Promise<void> }) {
  const t = words();
  const [typed, setTyped] = useState("");
  const name = user.email || user.id;
  return (
    <Question title={t.deleteTitle} text={t.deleteText} yes={t.deleteDo} kind="danger" isReady={typed.trim().toLowerCase() === name.toLowerCase()} onClose={onClose} onYes={onAnswer}>
      <Field label={t.deleteTyped(name)} autoFocus autoComplete="off" spellcheck={false} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
    </Question>
  );
}

function Who({ user }: { user: AdminUserDetails }) {
  return <strong><bdi>{user.email || user.id}</bdi></strong>;
}

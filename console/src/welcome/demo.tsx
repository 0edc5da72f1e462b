// In development one may look around without an account of one's own.
import { ChatError, type ErrorInfo } from "@ai-chat-platform/client";
import { useState } from "preact/hooks";
import { auth } from "../platform/session";
import { Button } from "../ui/button";
import { Problem } from "../ui/states";
import { enter } from "./place";
import { words } from "./words";

export function Demo({ user: { email, password } }: { user: { email: string; password: string } }) {
  const t = words();
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ErrorInfo | null>(null);
  /** It exists from its first visitor on. */
  const signIn = async () => {
    try {
      return await auth.signIn(email, password);
    } catch (cause) {
      if ((cause as ChatError).code !== "unauthorized") throw cause;
      return auth.register(email, password, "Demo");
    }
  };
  const begin = async () => {
    setBusy(true);
    setError(null);
    try {
      if (!(await signIn())) throw new ChatError("forbidden", t.demoConfirm);
      enter();
    } catch (cause) {
      setError(cause as ChatError);
    }
    setBusy(false);
  };
  return (
    <section class="card stack tight">
      <h2>{t.demoTitle}</h2>
      <p class="small soft">{t.demoNote}</p>
      {error && <Problem error={error} own={{ forbidden: t.demoConfirm }} />}
      <div><Button icon="chat" busy={isBusy} onClick={() => void begin()}>{t.demo}</Button></div>
    </section>
  );
}

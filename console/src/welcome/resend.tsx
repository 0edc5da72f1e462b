// Another mail, as soon as one can be sent: Auth sends one a minute.
import type { ErrorInfo } from "@ai-chat-platform/client";
import { useEffect, useState } from "preact/hooks";
import { inTime } from "../platform/format";
import { Button } from "../ui/button";
import { Problem } from "../ui/states";
import { announce } from "../ui/toast";
import { awaited, awaitMail, RESEND_AFTER } from "./awaited";
import { words } from "./words";

export function Resend({ send }: { send: () => Promise<void> }) {
  const t = words();
  const [now, setNow] = useState(Date.now());
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<ErrorInfo | null>(null);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const mail = awaited.value;
  if (!mail) return null;
  const wait = Math.ceil((mail.at - now) / 1000) + RESEND_AFTER;
  const again = async () => {
    setBusy(true);
    setError(null);
    try {
      await send();
      awaitMail(mail.email, mail.purpose);
      setNow(Date.now());
      announce(t.resent);
    } catch (cause) {
      setError(cause as ErrorInfo);
    }
    setBusy(false);
  };
  return (
    <div class="stack tight">
      {error && <Problem error={error} />}
      <div class="row">
        <Button small icon="mail" busy={isBusy} disabled={wait > 0} onClick={() => void again()}>{t.resend}</Button>
        {wait > 0 && <span class="small soft">{t.resendIn(inTime(wait))}</span>}
      </div>
    </div>
  );
}

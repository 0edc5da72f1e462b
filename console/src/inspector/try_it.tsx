// A message from the inspector, and its reply as it comes: to see it go on after the line was cut.
import { useState } from "preact/hooks";
import { chat, conversation } from "../platform/conversation";
import { Button } from "../ui/button";
import { Field } from "../ui/field";
import { words } from "./words";

export function TryIt() {
  const t = words();
  const [text, setText] = useState("");
  const { turns } = conversation.value;
  const newest = turns.at(-1);
  const reply = newest?.reply;
  const send = () => {
    chat.value?.send(text.trim() || t.sample).catch(() => {}); // what became of it is in the state
    setText("");
  };
  return (
    <section class="card stack" aria-label={t.tryIt}>
      <form class="row try-it" onSubmit={(event) => (event.preventDefault(), send())}>
        <div class="grow"><Field label={t.message} value={text} placeholder={t.sample} autoComplete="off" onInput={(event) => setText(event.currentTarget.value)} /></div>
        <Button type="submit" kind="primary" icon="send">{t.send}</Button>
      </form>
      {newest && (
        <div class="try-reply">
          <p class="small soft" dir="auto">{newest.user?.text}</p>
          <p dir="auto">{reply?.text ?? ""}{(!reply || reply.status === "streaming") && <span class="spinner" role="img" aria-label={t.writing} />}</p>
          {(reply?.error ?? newest.user?.error) && <p class="small soft">{(reply?.error ?? newest.user?.error)!.message}</p>}
        </div>
      )}
    </section>
  );
}

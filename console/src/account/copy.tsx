// Text to take away, such as a key, with a button that copies it.
import { Button } from "../ui/button";
import { copy } from "../ui/clipboard";
import { words } from "./words";

export function Copy({ text, isBlock }: { text: string; isBlock?: boolean }) {
  const t = words();
  return (
    <div class="secret">
      {isBlock ? <pre tabIndex={0}>{text}</pre> : <code>{text}</code>}
      <Button icon="copy" label={t.copy} onClick={() => void copy(text)} />
    </div>
  );
}

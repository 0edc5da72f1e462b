// A block of code: its language, "Copy", and colours once it is complete. The highlighter is loaded with the first one.
import { useEffect, useState } from "preact/hooks";
import { Button } from "../ui/button";
import { copy } from "../ui/clipboard";
import { words } from "./words";
import type { Piece } from "./highlighter";

const LONGEST = 60_000; // characters; longer code stays plain

export function Code({ text, language, isOpen }: { text: string; language: string; isOpen: boolean }) {
  const t = words();
  const name = /^[\w+#.-]{1,30}/.exec(language)?.[0] ?? "";
  const pieces = useColours(text, name, isOpen);
  return (
    <figure class="code" dir="ltr">
      <figcaption>
        <span>{name || t.code}</span>
        <Button kind="plain" small icon="copy" onClick={() => void copy(text)}>{t.copy}</Button>
      </figcaption>
      <pre tabIndex={0} role="group" aria-label={name ? t.codeIn(name) : t.code}>
        <code>{pieces ? pieces.map((piece, index) => (piece.kind ? <span key={index} class={piece.kind}>{piece.text}</span> : piece.text)) : text}</code>
      </pre>
    </figure>
  );
}

/** The pieces of the code by kind; null while it is being written, in an unknown language, or without the highlighter. */
function useColours(text: string, name: string, isOpen: boolean): readonly Piece[] | null {
  const [found, setFound] = useState<{ text: string; pieces: readonly Piece[] | null } | null>(null);
  useEffect(() => {
    if (isOpen || !name || text.length > LONGEST) return;
    let isWanted = true;
    import("./highlighter").then(
      ({ highlight }) => isWanted && setFound({ text, pieces: highlight(text, name) }),
      () => {}, // plain code is readable, too
    );
    return () => void (isWanted = false);
  }, [text, name, isOpen]);
  return found?.text === text ? found.pieces : null;
}

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { Button } from "./button";
import { words } from "./words";

/** A modal dialog while it is rendered. Escape and the close button call `onClose`; focus returns to where it was. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    element.current?.showModal();
    return () => before?.focus();
  }, []);
  return (
    <dialog
      ref={element}
      class="dialog"
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClose={onClose} // by the browser, where it does not ask
    >
      <div class="stack">
        <div class="row apart">
          <h2 id={id} class="grow">{title}</h2>
          <Button kind="plain" small icon="close" label={words().close} onClick={onClose} />
        </div>
        {children}
      </div>
    </dialog>
  );
}

// Copies text, and says so. Pages without TLS have no clipboard, and a browser may forbid it.
import { announce } from "./toast";
import { words } from "./words";

/** `copied`: what is said when it worked, where "Copied" is not enough. */
export async function copy(text: string, copied = words().copied): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    announce(copied);
  } catch {
    announce(words().notCopied);
  }
}

// The view that is open, in the address's fragment: `/#/admin/users/7` has the parts ["admin", "users", "7"].
import { computed, signal } from "@preact/signals";

const read = () => location.hash.replace(/^#\/?/, "");
const fragment = signal(read());
addEventListener("hashchange", () => (fragment.value = read()));

export const route = computed(() => fragment.value.split("?")[0]!.split("/").filter(Boolean).map(decoded));
export const parameters = computed(() => new URLSearchParams(fragment.value.split("?")[1] ?? ""));

/** A part as it stands where it is not encoded rightly: anybody can type an address. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a view, for links: `href={to("admin", "users", id)}`. */
export const to = (...parts: string[]): string => `#/${parts.map(encodeURIComponent).join("/")}`;

/** Whether another view's address has been opened, and its event has not come yet. */
export const isLeaving = (): boolean => read() !== fragment.peek();

export function open(address: string, { replace = false } = {}): void {
  if (replace) {
    history.replaceState(null, "", address);
    fragment.value = read();
  } else location.hash = address;
}

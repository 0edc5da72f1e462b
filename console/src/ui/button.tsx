import type { ComponentChildren, JSX } from "preact";
import { Icon, type IconName } from "./icon";

interface ButtonProps {
  children?: ComponentChildren;
  kind?: "primary" | "danger" | "plain";
  small?: boolean;
  icon?: IconName;
  /** For a button that shows only an icon: what it does. */
  label?: string;
  /** While its action runs: pressing it does nothing, and it shows that it works. It keeps the focus, which a disabled
   * button would lose. */
  busy?: boolean;
  onClick?: () => void;
}

/** Also keeps a form from being sent. */
const refuse = (event: Event) => event.preventDefault();

export function Button({ children, kind, small, icon, label, busy, onClick, ...rest }: ButtonProps & Omit<JSX.IntrinsicElements["button"], "icon" | "label" | "onClick">) {
  const classes = ["button", kind, small && "small", !children && "icon", rest.class].filter(Boolean).join(" ");
  return (
    <button type="button" {...rest} class={classes} aria-label={label} title={label} aria-busy={busy} aria-disabled={busy} onClick={busy ? refuse : onClick}>
      {busy ? <span class="spinner" /> : icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

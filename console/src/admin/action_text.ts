// An entry of the audit in words. Actions and details that this page does not know are shown as they are.
import type { Action } from "@ai-chat-platform/client/wire";
import { money } from "../platform/format";
import { words } from "./audit_words";
import { periodText } from "./period";

const ACTIONS = ["set_plan", "change_plan", "rotate_key", "repair", "create_user", "delete", "export", "block", "unblock", "make_admin", "remove_admin"] as const;
const DETAILS = ["plan", "budget", "period", "tokens_per_minute", "requests_per_minute", "models", "reason", "at_once"] as const;

export function actionName(action: string): string {
  const known = ACTIONS.find((name) => name === action);
  return known ? words()[known] : action;
}

/** "budget: $20.00; period: Every month, on the 1st". Empty if there is nothing to say. */
export function detailsText(details: Action["details"]): string {
  return Object.entries(details)
    .filter(([name, value]) => !(value === null && (name === "reason" || name === "plan")))
    .map(([name, value]) => {
      const known = DETAILS.find((one) => one === name);
      return `${known ? words()[known] : name}: ${valueText(name, value)}`;
    })
    .join("; ");
}

function valueText(name: string, value: unknown): string {
  const t = words();
  if (name === "period" && (value === null || typeof value === "string")) return periodText(value);
  if (name === "models" && Array.isArray(value)) return value.length ? value.join(", ") : t.all;
  if (value === null) return t.noLimit;
  if (name === "budget" && typeof value === "string") return money(value);
  if (typeof value === "boolean") return value ? t.yes : t.no;
  return typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value);
}

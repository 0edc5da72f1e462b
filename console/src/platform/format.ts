// Numbers, money, dates in the user's language and time zone.
import { language } from "./language";

/** US dollars. Small amounts keep the digits that tell them apart: the bill is exact to the last digit. */
export function money(amount: string | number): string {
  const value = Number(amount);
  const digits = value !== 0 && Math.abs(value) < 1 ? 6 : 2;
  return new Intl.NumberFormat(language.value, { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value);
}

export const count = (value: number): string => new Intl.NumberFormat(language.value).format(value);
export const percent = (share: number): string => new Intl.NumberFormat(language.value, { style: "percent", maximumFractionDigits: 0 }).format(share);
export const seconds = (value: number): string =>
  new Intl.NumberFormat(language.value, { style: "unit", unit: "second", unitDisplay: "narrow", maximumFractionDigits: 1 }).format(value);
export const day = (at: string | Date): string => new Intl.DateTimeFormat(language.value, { dateStyle: "medium" }).format(new Date(at));
/** "4 December": for a date within the next or last months, in a sentence, which does not break within it. */
export const dayAndMonth = (at: string | Date): string =>
  new Intl.DateTimeFormat(language.value, { day: "numeric", month: "long" }).format(new Date(at)).replaceAll(" ", "\u00a0");
export const time = (at: string | Date): string => new Intl.DateTimeFormat(language.value, { timeStyle: "short" }).format(new Date(at));
export const moment = (at: string | Date): string =>
  new Intl.DateTimeFormat(language.value, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at));

/** "1.2 MB" of so many bytes. */
export function size(bytes: number): string {
  const [unit, value] = bytes < 1e6 ? (["kilobyte", bytes / 1e3] as const) : (["megabyte", bytes / 1e6] as const);
  return new Intl.NumberFormat(language.value, { style: "unit", unit, maximumFractionDigits: 1 }).format(value);
}

/** "in 42 seconds". */
export const inTime = (wait: number): string => ago(new Date(Date.now() + Math.ceil(wait) * 1000));

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

/** "5 minutes ago". */
export function ago(at: string | Date, now = Date.now()): string {
  let amount = (new Date(at).getTime() - now) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(amount) < size) return new Intl.RelativeTimeFormat(language.value, { numeric: "auto" }).format(Math.round(amount), unit);
    amount /= size;
  }
  return "";
}

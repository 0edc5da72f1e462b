import { language } from "../platform/language";

/** "12:03:05.120": when a frame came, by this device's clock. */
export const clock = (at: number): string =>
  new Intl.DateTimeFormat(language.value, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" }).format(at);

// The language of the console: the browser's, unless the user has chosen one. Each view has its words beside it, in English
// and Russian; TypeScript sees to it that neither lacks one.
import { effect, signal } from "@preact/signals";
import { remembered, remember } from "./preferences";

export type Language = "en" | "ru";
type Word = string | ((...values: never[]) => string);
type SameWords<W> = { [K in keyof W]: W[K] extends (...values: infer V) => string ? (...values: V) => string : string };

const browsers = (): Language => (navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => tag === "en" || tag === "ru") as Language) ?? "en";

export const language = signal<Language>(remembered("language", ["en", "ru"]) ?? browsers());
effect(() => {
  document.documentElement.lang = language.value;
});

export function chooseLanguage(chosen: Language): void {
  language.value = chosen;
  remember("language", chosen);
}

/** A view's words. Call the result while rendering: `const t = words();`, then `t.send`, `t.waiting(3)`. */
export function dictionary<W extends Record<string, Word>>(en: W, ru: SameWords<W>): () => SameWords<W> {
  return () => (language.value === "ru" ? ru : (en as unknown as SameWords<W>));
}

/** `count` with the noun's form for it: `plural(3, {one: "message", other: "messages"})` is "3 messages". */
export function plural(count: number, forms: { one: string; few?: string; many?: string; other: string }): string {
  const form = new Intl.PluralRules(language.value).select(count) as keyof typeof forms;
  return `${count.toLocaleString(language.value)} ${forms[form] ?? forms.other}`;
}

// What this browser remembers of its user's choices. Storage may be forbidden: then a choice lasts until the reload.
import { effect, signal } from "@preact/signals";

export function remembered<T extends string>(name: string, options: readonly T[]): T | null {
  try {
    const found = localStorage.getItem(`console.${name}`) as T | null;
    return found !== null && options.includes(found) ? found : null;
  } catch {
    return null;
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`console.${name}`, value);
  } catch {
    // forbidden, or full
  }
}

const CHOICES = ["console.theme", "console.language"];

/** What a user leaves behind when they sign out: the look of the page, and nothing else. */
export function forgetAllButChoices(): void {
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith("console.") && !CHOICES.includes(key)) localStorage.removeItem(key);
    sessionStorage.clear();
  } catch {
    // forbidden: then nothing was kept
  }
}

export const THEMES = ["auto", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

export const theme = signal<Theme>(remembered("theme", THEMES) ?? "auto");
effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function chooseTheme(chosen: Theme): void {
  theme.value = chosen;
  remember("theme", chosen);
}

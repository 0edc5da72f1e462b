// The language and the theme, as this browser's user wants them.
import { chooseLanguage, dictionary, type Language, language } from "../platform/language";
import { chooseTheme, type Theme, theme } from "../platform/preferences";
import { Select } from "./field";

const words = dictionary(
  { language: "Language", theme: "Theme", auto: "Auto", light: "Light", dark: "Dark" },
  { language: "Язык", theme: "Оформление", auto: "Авто", light: "Светлое", dark: "Тёмное" },
);

/** Each language calls itself by its own name. */
const LANGUAGES: readonly (readonly [Language, string])[] = [["en", "English"], ["ru", "Русский"]];

/** `isCompact`: the label is only read out. */
interface ChooserProps {
  isCompact?: boolean;
}

export function LanguageChooser({ isCompact }: ChooserProps) {
  return <div class={isCompact ? "compact" : ""}><Select label={words().language} value={language.value} options={LANGUAGES} onChoose={chooseLanguage} /></div>;
}

export function ThemeChooser({ isCompact }: ChooserProps) {
  const t = words();
  const options: readonly (readonly [Theme, string])[] = [["auto", t.auto], ["light", t.light], ["dark", t.dark]];
  return <div class={isCompact ? "compact" : ""}><Select label={t.theme} value={theme.value} options={options} onChoose={chooseTheme} /></div>;
}

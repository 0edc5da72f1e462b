// The period of a budget in words. LiteLLM begins 1d at midnight, 7d on Mondays, 30d and 1mo on the first, all in UTC.
import { dictionary, plural } from "../platform/language";

const words = dictionary(
  {
    none: "Never",
    month: "Every month, on the 1st",
    week: "Every week, on Monday",
    day: "Every day, at midnight UTC",
    s: (n: number) => `Every ${plural(n, { one: "second", other: "seconds" })}`,
    m: (n: number) => `Every ${plural(n, { one: "minute", other: "minutes" })}`,
    h: (n: number) => (n === 1 ? "Every hour" : `Every ${plural(n, { one: "hour", other: "hours" })}`),
    d: (n: number) => `Every ${plural(n, { one: "day", other: "days" })}`,
  },
  {
    none: "Никогда",
    month: "Каждый месяц, 1-го числа",
    week: "Каждую неделю, в понедельник",
    day: "Каждый день, в полночь по UTC",
    s: (n) => `Раз в ${plural(n, { one: "секунду", few: "секунды", many: "секунд", other: "секунды" })}`,
    m: (n) => `Раз в ${plural(n, { one: "минуту", few: "минуты", many: "минут", other: "минуты" })}`,
    h: (n) => (n === 1 ? "Раз в час" : `Раз в ${plural(n, { one: "час", few: "часа", many: "часов", other: "часа" })}`),
    d: (n) => `Раз в ${plural(n, { one: "день", few: "дня", many: "дней", other: "дня" })}`,
  },
);

export function periodText(period: string | null): string {
  const t = words();
  if (period === null) return t.none;
  if (period === "1mo" || period === "30d") return t.month;
  if (period === "7d") return t.week;
  if (period === "1d") return t.day;
  const [, number, unit] = /^([0-9]+)([smhd])$/.exec(period) ?? [];
  return unit ? t[unit as "s" | "m" | "h" | "d"](Number(number)) : period;
}

// What is said of an error. In English that is the server's sentence; in Russian the sentence for its code. A wait that the
// server names is said in both.
import type { ChatErrorCode, ErrorInfo } from "@ai-chat-platform/client";
import { inTime, money, moment } from "./format";
import { dictionary, language } from "./language";

/** Sentences of a form's own, where a code means something more exact there. */
export type OwnSentences = Partial<Record<ChatErrorCode, string>>;

export const RUSSIAN: OwnSentences = {
  account_blocked: "Этот аккаунт заблокирован или закрыт.",
  agent_unavailable: "Ваш агент ещё не готов. Попробуйте чуть позже.",
  anonymous_not_allowed: "Здесь нужен аккаунт с адресом почты.",
  budget_exceeded: "Бюджет этого периода исчерпан.",
  busy: "Агент сейчас отвечает. Дождитесь конца ответа или остановите его.",
  captcha_failed: "Этот сервер требует капчу, которой на этой странице нет. Войдите через приложение сервиса.",
  closed: "Чат закрыт.",
  content_refused: "Правила языковой модели не позволяют ответить на это сообщение.",
  draining: "Сервер перезапускается. Соединение восстановится само.",
  events_unavailable: "Разговор открыт на другом сервере, который сейчас недоступен.",
  forbidden: "Для этого не хватает прав.",
  internal_error: "На сервере что-то пошло не так.",
  invalid_request: "Запрос составлен неверно. Проверьте, что вы ввели.",
  key_refused: "Шлюз моделей не принимает ключ вашего аккаунта. Напишите в поддержку.",
  last_admin: "Это единственный администратор. Сначала назначьте другого.",
  letta_unavailable: "Сервис агентов сейчас недоступен.",
  litellm_unavailable: "Шлюз моделей сейчас недоступен.",
  mfa_required: "Здесь нужен второй фактор, а эта страница его не спрашивает. Войдите через приложение сервиса.",
  model_error: "Языковая модель не смогла ответить.",
  network: "Сервер недоступен. Проверьте соединение.",
  not_found: "Здесь ничего нет.",
  not_retryable: "Повторить можно только неудачный, остановленный или неотправленный ответ.",
  not_signed_in: "Вы вышли из аккаунта. Войдите, чтобы продолжить.",
  origin_not_allowed: "Страницам с этого адреса сюда нельзя.",
  otp_expired: "Код или ссылка не подходит, уже использованы или устарели. Запросите новые.",
  overloaded: "Слишком много ответов в очереди. Попробуйте чуть позже.",
  queue_full: "Слишком много сообщений уже ждут очереди.",
  rate_limited: "Слишком много запросов.",
  reauthentication_required: "Введите текущий пароль и повторите.",
  registration_closed: "Регистрация закрыта.",
  supabase_unavailable: "База данных сейчас недоступна.",
  token_expired: "Вход устарел. Обновите страницу.",
  too_large: "Это больше, чем можно.",
  too_many_keys: "Ключей уже слишком много. Сначала отзовите один из них.",
  turn_timeout: "Ответ не уложился в отведённое время.",
  unauthorized: "Войдите, чтобы продолжить.",
  weak_password: "Выберите пароль надёжнее.",
};

/** Where the server's sentence is for apps that could do something about it. */
const ENGLISH: OwnSentences = {
  captcha_failed: "This server asks for a captcha, which this page does not have. Sign in with the service's app.",
  mfa_required: "This needs your second factor, which this page does not ask for. Sign in with the service's app.",
};

const words = dictionary(
  {
    again: (when: string) => `Try again ${when}.`,
    budget: (spent: string, limit: string, until: string) => `The budget of this period is used up: ${spent} of ${limit}. It is renewed ${until}.`,
    passwordLength: (characters: string) => `It needs at least ${characters} characters.`,
    passwordKinds: "It needs letters and digits.",
    passwordSame: "Choose one that differs from the old one.",
    tooMany: "Too many attempts.",
    email: "Enter an address such as name@example.com.",
    password: "Too long: at most 72 bytes, which are 72 Latin letters or 36 Cyrillic ones.",
    other: "This is not valid.",
  },
  {
    again: (when) => `Попробуйте ${when}.`,
    budget: (spent, limit, until) => `Бюджет этого периода исчерпан: ${spent} из ${limit}. Он обновится ${until}.`,
    passwordLength: (characters) => `Нужно не меньше ${characters} символов.`,
    passwordKinds: "Нужны и буквы, и цифры.",
    passwordSame: "Новый пароль должен отличаться от старого.",
    tooMany: "Слишком много попыток.",
    email: "Введите адрес вида name@example.com.",
    password: "Слишком длинный: не больше 72 байт, то есть 72 латинских или 36 русских букв.",
    other: "Так не годится.",
  },
);

/** A sentence for people in their language. */
export function sentence(error: ErrorInfo, own: OwnSentences = {}): string {
  const t = words();
  if (own[error.code]) return own[error.code]!;
  if (error.code === "budget_exceeded" && error.budget) {
    const { spent, limit, resetsAt } = error.budget;
    return t.budget(money(spent), money(limit), moment(resetsAt));
  }
  if (error.code === "weak_password") return weakPassword(error.message);
  if (error.code === "rate_limited" && error.retryAfter) return `${t.tooMany} ${t.again(inTime(error.retryAfter))}`;
  return (language.value === "ru" ? RUSSIAN : ENGLISH)[error.code] ?? error.message;
}

/** What the fields of a form lack, by the last name of each pointer. */
export function fieldSentences(error: ErrorInfo): Record<string, string> {
  const t = words();
  const found = error.errors.map(({ pointer, detail }) => {
    const name = pointer.split("/").pop()!;
    const field = name === "token" ? "code" : name; // of a mail
    if (field === "email" || field === "password") return [field, t[field]];
    return [field, language.value === "ru" ? t.other : detail];
  });
  return Object.fromEntries(found) as Record<string, string>;
}

/** Supabase Auth lists whole alphabets: "at least one character of each: abcdef…". */
function weakPassword(message: string): string {
  const t = words();
  const length = /at least (\d+) characters/.exec(message)?.[1];
  const said = [length && t.passwordLength(length), /of each/.test(message) && t.passwordKinds, /differ/.test(message) && t.passwordSame];
  return said.filter(Boolean).join(" ") || (language.value === "ru" ? RUSSIAN.weak_password! : message);
}

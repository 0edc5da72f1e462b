// The words of the usage of all users.
import { dictionary } from "../platform/language";

export const words = dictionary(
  {
    cost: "Spent",
    messages: "Messages",
    tokens: "Tokens",
    users: "Users a day",
    busiest: "On the busiest day",
    background: (cost: string) => `${cost} of it in the background`,
    empty: "Nothing was used in these days",
    emptyMore: "Choose a longer range, or come back when somebody has written a message.",
    note: "All users together, with those deleted since then. Days are days in UTC. The costs of the last seconds may still be missing.",
  },
  {
    cost: "Потрачено",
    messages: "Сообщения",
    tokens: "Токены",
    users: "Пользователей в день",
    busiest: "В самый активный день",
    background: (cost) => `из них ${cost} — фоновый расход`,
    empty: "За эти дни расхода не было",
    emptyMore: "Выберите период длиннее или вернитесь, когда кто-нибудь напишет сообщение.",
    note: "Все пользователи вместе, включая удалённых с тех пор. Дни — по UTC. Расход за последние секунды может ещё не учитываться.",
  },
);

// The form of a user's limits as text, checked as the server checks it (PATCH admin/users/{id}/plan).
import type { ChangePlan, PlanFields } from "@ai-chat-platform/client/wire";

export interface LimitsText {
  budget: string;
  period: string;
  tokens: string;
  requests: string;
  /** One name a line. */
  models: string;
}

export type Wrong = "amount" | "digits" | "period" | "count" | "models" | "modelMissing";

const MOST_DIGITS = 15;
const HIGHEST = 2 ** 31 - 1;
const MOST_MODELS = 100;
const LONGEST_MODEL = 200;
const PERIOD = /^([1-9][0-9]*[smhd]|1mo)$/;

export function textOf(limits: PlanFields): LimitsText {
  return {
    budget: limits.budget ?? "",
    period: limits.period ?? "",
    tokens: limits.tokens_per_minute?.toString() ?? "",
    requests: limits.requests_per_minute?.toString() ?? "",
    models: limits.models.join("\n"),
  };
}

/** "1 250,5" as "1250.5". The comma of "1,000" might be either: it stays, and is refused. */
export function amountOf(text: string): string {
  const dense = text.replace(/[\s  $]/g, "");
  return dense.replace(/^([0-9]+),([0-9]{1,2})$/, "$1.$2");
}

const modelsOf = (text: string) => [...new Set(text.split(/[\n,]/).map((name) => name.trim()).filter(Boolean))];

/** What is wrong with each field; empty if nothing is. `agentModel`: the model that every agent uses, if known. */
export function problemsOf(text: LimitsText, agentModel?: string): Partial<Record<keyof LimitsText, Wrong>> {
  const wrong: Partial<Record<keyof LimitsText, Wrong>> = {};
  const amount = amountOf(text.budget);
  if (amount && !/^[0-9]+(\.[0-9]+)?$/.test(amount)) wrong.budget = "amount";
  else if (amount.replace(".", "").replace(/^0+(?=.)/, "").length > MOST_DIGITS) wrong.budget = "digits";
  if (text.period && !PERIOD.test(text.period.trim())) wrong.period = "period";
  for (const field of ["tokens", "requests"] as const) {
    const value = text[field].replace(/[\s  ]/g, "");
    if (value && !(/^[0-9]+$/.test(value) && Number(value) >= 1 && Number(value) <= HIGHEST)) wrong[field] = "count";
  }
  const models = modelsOf(text.models);
  if (models.length > MOST_MODELS || models.some((name) => name.length > LONGEST_MODEL)) wrong.models = "models";
  else if (models.length > 0 && agentModel && !models.includes(agentModel)) wrong.models = "modelMissing";
  return wrong;
}

/** The fields that differ from `before`; null where a limit is removed. */
export function changeOf(text: LimitsText, before: PlanFields): ChangePlan {
  const count = (value: string) => (value.trim() ? Number(value.replace(/[\s  ]/g, "")) : null);
  const wanted: PlanFields = {
    budget: amountOf(text.budget) || null,
    period: text.period.trim() || null,
    tokens_per_minute: count(text.tokens),
    requests_per_minute: count(text.requests),
    models: modelsOf(text.models),
  };
  const isSame = (name: keyof PlanFields) =>
    name === "budget" && wanted.budget !== null && before.budget !== null
      ? Number(wanted.budget) === Number(before.budget)
      : JSON.stringify(wanted[name]) === JSON.stringify(before[name]);
  const names = (Object.keys(wanted) as (keyof PlanFields)[]).filter((name) => !isSame(name));
  return Object.fromEntries(names.map((name) => [name, wanted[name]])) as ChangePlan;
}

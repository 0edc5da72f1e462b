-- Tables of billing: the ledger has a row per model call; turns, messages and daily metrics carry sums of its rows.
-- `usage_metrics` has the specification's columns first, ours after them. Users read their own rows; nobody but the service
-- role writes.

-- One attempt at a turn. Its model calls are those between the time it was sent and the time the next one was sent.
create table public.attempts (
  turn_id uuid not null references public.turns (id) on delete cascade,
  attempt integer not null,
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  started_at timestamptz not null,
  sent_at timestamptz, -- to the agent, for the last time; null: never
  stopped_at timestamptz, -- when it was made to stop: a call that ended later was its last, and may end much later
  ended_at timestamptz,
  outcome text check (outcome in ('completed', 'failed', 'cancelled', 'unsent')),
  run_id text,
  usage jsonb, -- as the agent's service reported it
  settled_at timestamptz, -- since when all its calls are taken to be in the ledger
  flag text, -- what could not be confirmed
  primary key (turn_id, attempt)
);

create index attempts_user on public.attempts (user_id, started_at);
create index attempts_unsettled on public.attempts (user_id, ended_at) where settled_at is null;

create table public.ledger (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  turn_id uuid, -- null: the agent's own housekeeping, which belongs to no turn
  attempt integer,
  request_id text not null unique, -- LiteLLM's; `estimate:…` for what stands in until its rows are there
  status text not null check (status in ('estimated', 'settled', 'written_off')),
  source text not null check (source in ('letta', 'litellm')), -- whose count of the tokens it is
  outcome text not null check (outcome in ('success', 'failure')),
  model text not null,
  model_calls integer not null default 1, -- an estimate stands for all calls of its attempt
  prompt_tokens integer not null default 0,
  completion_tokens integer not null default 0,
  cached_tokens integer not null default 0, -- of the prompt's
  reasoning_tokens integer not null default 0, -- of the completion's
  total_tokens integer not null generated always as (prompt_tokens + completion_tokens) stored,
  price jsonb, -- US dollars per token as text: {prompt, completion, cached}; null where it is not known
  cost numeric, -- US dollars, every digit of LiteLLM's; null: an estimate without a price
  started_at timestamptz not null, -- by LiteLLM's clock
  ended_at timestamptz,
  flag text,
  recorded_at timestamptz not null default now(),
  date date not null generated always as ((started_at at time zone 'utc')::date) stored, -- the day it counts on
  -- A call that was refused is listed with its prompt's tokens, but nothing was used.
  counted boolean not null generated always as (
    status <> 'written_off' and (outcome = 'success' or coalesce(cost, 0) > 0)
  ) stored,
  foreign key (turn_id, attempt) references public.attempts (turn_id, attempt) on delete cascade
);

create index ledger_turn on public.ledger (turn_id);
create index ledger_day on public.ledger (user_id, date);
create index ledger_time on public.ledger (user_id, started_at);

create table public.usage_metrics (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  date date default current_date,
  total_messages integer default 0,
  total_tokens integer default 0,
  total_cost decimal(10, 6) default 0,
  unique (user_id, date),

  exact_cost numeric not null default 0 -- total_cost before rounding: many small turns must not round to nothing
);

-- The keys a user's calls were made with, by the hash that LiteLLM logs. A key that was replaced is valid for a while longer.
create table public.model_keys (
  key_hash text primary key,
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  created_at timestamptz not null default now(),
  replaced_at timestamptz
);

create index model_keys_user on public.model_keys (user_id);

-- Per user: when to read LiteLLM's log next, and the budget as LiteLLM last reported it.
create table public.billing_accounts (
  user_id uuid primary key references public.user_profiles (id) on delete cascade,
  look_at timestamptz, -- null: nothing was used lately
  reread_at timestamptz not null default now(), -- when the last 24 hours were last read again
  budget_limit numeric, -- US dollars; null: unlimited
  budget_period text,
  budget_started_at timestamptz, -- of the period that was current when LiteLLM was last asked
  budget_resets_at timestamptz,
  budget_read_at timestamptz,
  warned_level integer not null default 0, -- the highest percentage the user was warned of in this period
  warned_period timestamptz
);

create index billing_accounts_due on public.billing_accounts (look_at) where look_at is not null;

alter table public.attempts enable row level security;
alter table public.ledger enable row level security;
alter table public.usage_metrics enable row level security;
alter table public.model_keys enable row level security;
alter table public.billing_accounts enable row level security;
revoke all on
  public.attempts, public.ledger, public.usage_metrics, public.model_keys, public.billing_accounts
from public, anon, authenticated;
grant select, insert, update, delete on
  public.attempts, public.ledger, public.usage_metrics, public.model_keys, public.billing_accounts
to service_role;
grant select (
  user_id, turn_id, attempt, status, outcome, model, model_calls, prompt_tokens, completion_tokens, cached_tokens,
  reasoning_tokens, total_tokens, cost, started_at, ended_at, date, counted
) on public.ledger to authenticated;
grant select on public.usage_metrics to authenticated;
grant select (user_id, budget_limit, budget_period, budget_started_at, budget_resets_at)
  on public.billing_accounts to authenticated;
create policy ledger_own on public.ledger
  for select to authenticated using ((select auth.uid()) = user_id);
create policy usage_metrics_own on public.usage_metrics
  for select to authenticated using ((select auth.uid()) = user_id);
create policy billing_accounts_own on public.billing_accounts
  for select to authenticated using ((select auth.uid()) = user_id);

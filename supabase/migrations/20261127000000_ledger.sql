-- The ledger: what every model call cost, a row each. Turns, messages and daily metrics carry sums of its rows, which the
-- database derives itself: correcting a row corrects them all.

-- One attempt at a turn, as its model calls are looked for: between being sent and the next one's being sent.
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

alter table public.attempts enable row level security;
alter table public.ledger enable row level security;
revoke all on public.attempts, public.ledger from public, anon, authenticated;
grant select, insert, update, delete on public.attempts, public.ledger to service_role;
grant select (
  user_id, turn_id, attempt, status, outcome, model, model_calls, prompt_tokens, completion_tokens, cached_tokens,
  reasoning_tokens, total_tokens, cost, started_at, ended_at, date, counted
) on public.ledger to authenticated;
create policy ledger_own on public.ledger
  for select to authenticated using ((select auth.uid()) = user_id);

-- What was used on each UTC day, model by model. Money as text, so that no digit is lost on the way through JSON.
create view public.usage_by_model with (security_invoker = true) as
  select
    user_id,
    date,
    model,
    sum(model_calls)::bigint as model_calls,
    sum(prompt_tokens)::bigint as prompt_tokens,
    sum(completion_tokens)::bigint as completion_tokens,
    sum(cached_tokens)::bigint as cached_tokens,
    sum(reasoning_tokens)::bigint as reasoning_tokens,
    sum(total_tokens)::bigint as total_tokens,
    coalesce(sum(cost), 0)::text as cost,
    coalesce(sum(cost) filter (where turn_id is null), 0)::text as background_cost
  from public.ledger
  where counted
  group by user_id, date, model;
revoke all on public.usage_by_model from public, anon, authenticated;
grant select on public.usage_by_model to authenticated, service_role;

-- What a turn used and cost, from its rows; and how sure that is. Its reply carries the same, rounded once.
create function private.derive_turn(p_turn_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  v_tried boolean;
  v_open boolean;
begin
  select count(*) > 0, coalesce(bool_or(a.settled_at is null), false) into v_tried, v_open
    from public.attempts a where a.turn_id = p_turn_id and a.ended_at is not null;
  update public.turns t set usage = s.usage, cost = s.cost, cost_status = s.cost_status
  from (
    select
      case when bool_or(l.counted) then jsonb_build_object(
        'prompt_tokens', sum(l.prompt_tokens) filter (where l.counted),
        'completion_tokens', sum(l.completion_tokens) filter (where l.counted),
        'total_tokens', sum(l.total_tokens) filter (where l.counted),
        'cached_tokens', sum(l.cached_tokens) filter (where l.counted),
        'reasoning_tokens', sum(l.reasoning_tokens) filter (where l.counted),
        'model_calls', sum(l.model_calls) filter (where l.counted)
      ) end as usage,
      coalesce(
        sum(l.cost) filter (where l.counted),
        case when v_tried and not v_open and not coalesce(bool_or(l.counted), false) then 0 end
      ) as cost,
      case
        when not v_tried then null
        when v_open or bool_or(l.status = 'estimated') then 'estimated'
        when bool_or(l.status = 'written_off') then 'written_off'
        else 'settled'
      end as cost_status
    from public.ledger l where l.turn_id = p_turn_id
  ) s
  where t.id = p_turn_id;
  update public.messages m set tokens_used = (t.usage ->> 'total_tokens')::integer, cost = round(t.cost, 6)
    from public.turns t
    where t.id = p_turn_id and m.user_id = t.user_id and m.position = 2 * t.number + 1;
end
$$;

-- A UTC day's tokens and cost, from its rows.
create function private.derive_day(p_user_id uuid, p_date date) returns void
language sql set search_path = '' as $$
  insert into public.usage_metrics as d (user_id, date, total_tokens, total_cost, exact_cost)
    select p_user_id, p_date, s.tokens, round(s.cost, 6), s.cost
    from (
      select coalesce(sum(l.total_tokens), 0) as tokens, coalesce(sum(l.cost), 0) as cost
      from public.ledger l where l.user_id = p_user_id and l.date = p_date and l.counted
    ) s
  on conflict (user_id, date) do update set
    total_tokens = excluded.total_tokens, total_cost = excluded.total_cost, exact_cost = excluded.exact_cost
$$;

-- The user's profile is locked first, as everywhere: the sums are of rows that nobody else is changing.
create function private.ledger_changed() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform from public.user_profiles where id = coalesce(new.user_id, old.user_id) for no key update;
  if not found then
    return null; -- the user is being deleted, and all this with it
  end if;
  if tg_op <> 'INSERT' then
    perform private.derive_turn(old.turn_id);
    perform private.derive_day(old.user_id, old.date);
  end if;
  if tg_op <> 'DELETE' then
    perform private.derive_turn(new.turn_id);
    perform private.derive_day(new.user_id, new.date);
  end if;
  return null;
end
$$;

create trigger ledger_changed after insert or update or delete on public.ledger
  for each row execute function private.ledger_changed();

-- Make a waiting turn the running one. What an earlier attempt left is put aside, not lost.
create or replace function private.run_turn(p_turn_id uuid) returns void
language sql set search_path = '' as $$
  update public.turns set
    status = 'running',
    past_run_ids = array_remove(past_run_ids || run_id, null),
    run_id = null,
    carried_by = null,
    cancel_requested_at = null,
    started_at = clock_timestamp()
  where id = p_turn_id;
  insert into public.attempts (turn_id, attempt, user_id, started_at)
    select t.id, t.attempt, t.user_id, t.started_at from public.turns t where t.id = p_turn_id
  on conflict (turn_id, attempt) do nothing
$$;

-- Note how an attempt ended, and what it is estimated to have cost until LiteLLM's rows say. `p_end` as in finish_turn.
create function private.end_attempt(p_turn public.turns, p_end jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  v_estimate jsonb := nullif(p_end -> 'estimate', 'null');
  v_usage jsonb := nullif(p_end -> 'usage', 'null');
  v_attempt public.attempts;
begin
  update public.attempts set
    sent_at = started_at + make_interval(secs => (p_end ->> 'sent_after')::double precision),
    stopped_at = case
      when p_turn.cancel_requested_at is not null then p_turn.cancel_requested_at
      when p_end -> 'error' ->> 'code' in ('turn_timeout', 'letta_unavailable') then clock_timestamp()
    end,
    ended_at = clock_timestamp(),
    outcome = p_end ->> 'status',
    run_id = p_turn.run_id,
    usage = v_usage,
    -- Nothing can have been charged for what was never sent.
    settled_at = case when p_end ->> 'sent_after' is null then clock_timestamp() end
  where turn_id = p_turn.id and attempt = p_turn.attempt
  returning * into v_attempt;
  if v_estimate is not null then
    insert into public.ledger (
      user_id, turn_id, attempt, request_id, status, source, outcome, model, model_calls,
      prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, price, cost, started_at, ended_at
    ) values (
      p_turn.user_id, p_turn.id, p_turn.attempt, 'estimate:' || p_turn.id || ':' || p_turn.attempt, 'estimated',
      'letta', 'success', v_estimate ->> 'model', (v_usage ->> 'model_calls')::integer,
      (v_usage ->> 'prompt_tokens')::integer, (v_usage ->> 'completion_tokens')::integer,
      (v_usage ->> 'cached_tokens')::integer, (v_usage ->> 'reasoning_tokens')::integer,
      nullif(v_estimate -> 'price', 'null'), (v_estimate ->> 'cost')::numeric,
      coalesce(v_attempt.sent_at, v_attempt.started_at), v_attempt.ended_at
    );
  end if;
  perform private.derive_turn(p_turn.id);
end
$$;

-- Store the reply of an ended attempt. An attempt without text keeps the partial reply of an earlier one.
create or replace function private.store_reply(p_turn public.turns, p_text text) returns void
language plpgsql set search_path = '' as $$
declare
  v_position bigint := 2 * p_turn.number + 1;
begin
  if p_text = '' and p_turn.status <> 'completed' then
    return;
  end if;
  if not exists (select from public.messages m where m.user_id = p_turn.user_id and m.position = v_position) then
    perform private.count_usage(p_turn.user_id, 1, 0, 0);
  end if;
  insert into public.messages (user_id, turn_id, role, content, position, status, created_at)
    values (
      p_turn.user_id, p_turn.id, 'assistant', p_text, v_position,
      case when p_turn.status = 'completed' then 'complete' else 'partial' end, clock_timestamp()
    )
    on conflict (user_id, position) do update set content = excluded.content, status = excluded.status;
end
$$;

-- What was used before there was a ledger. Rows of the last two days are still looked for at LiteLLM.
insert into public.attempts (turn_id, attempt, user_id, started_at, sent_at, stopped_at, ended_at, outcome, run_id,
                             usage, settled_at, flag)
  select
    t.id, t.attempt, t.user_id, t.started_at, t.started_at, t.cancel_requested_at, t.finished_at,
    case when t.status in ('completed', 'failed', 'cancelled') then t.status end, t.run_id,
    case when t.attempt = 1 then t.usage end,
    case when t.finished_at < now() - interval '2 days' then now() end,
    case when t.finished_at < now() - interval '2 days' then 'unlogged' end
  from public.turns t where t.started_at is not null;
insert into public.ledger (
  user_id, turn_id, attempt, request_id, status, source, outcome, model, model_calls,
  prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost, started_at, ended_at
)
  select
    t.user_id, t.id, t.attempt, 'estimate:' || t.id || ':' || t.attempt, 'estimated', 'letta', 'success', 'unknown',
    coalesce((t.usage ->> 'model_calls')::integer, 1), coalesce((t.usage ->> 'prompt_tokens')::integer, 0),
    coalesce((t.usage ->> 'completion_tokens')::integer, 0), coalesce((t.usage ->> 'cached_tokens')::integer, 0),
    coalesce((t.usage ->> 'reasoning_tokens')::integer, 0), t.cost, t.started_at, t.finished_at
  from public.turns t where t.usage is not null and t.started_at is not null;

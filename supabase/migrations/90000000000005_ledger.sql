-- The ledger's sums: turns, messages and daily metrics have sums of its rows, which a trigger updates at each change.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- An amount limited to the range of decimal(10, 6). The specified columns saturate, the exact ones do not: a larger
-- amount must not raise an error at every change of its day.
create or replace function private.specified_cost(p_cost numeric) returns numeric
language sql immutable strict set search_path = '' as $$
  select least(round(p_cost, 6), 9999.999999)
$$;

-- A number of tokens limited to the range of an integer.
create or replace function private.specified_tokens(p_tokens numeric) returns integer
language sql immutable strict set search_path = '' as $$
  select least(p_tokens, 2147483647)::integer
$$;

-- A turn's usage, cost and cost status, from its rows and attempts. Its reply has the same, rounded once.
create or replace function private.derive_turn(p_turn_id uuid) returns void
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
  update public.messages m set
    tokens_used = private.specified_tokens((t.usage ->> 'total_tokens')::numeric), cost = private.specified_cost(t.cost)
    from public.turns t
    where t.id = p_turn_id and m.user_id = t.user_id and m.position = 2 * t.number + 1;
end
$$;

-- A UTC day's tokens and cost, from its rows.
create or replace function private.derive_day(p_user_id uuid, p_date date) returns void
language sql set search_path = '' as $$
  insert into public.usage_metrics as d (user_id, date, total_tokens, total_cost, exact_cost)
    select p_user_id, p_date, private.specified_tokens(s.tokens), private.specified_cost(s.cost), s.cost
    from (
      select coalesce(sum(l.total_tokens), 0) as tokens, coalesce(sum(l.cost), 0) as cost
      from public.ledger l where l.user_id = p_user_id and l.date = p_date and l.counted
    ) s
  on conflict (user_id, date) do update set
    total_tokens = excluded.total_tokens, total_cost = excluded.total_cost, exact_cost = excluded.exact_cost
$$;

-- Add to the user's UTC day.
create or replace function private.count_usage(p_user_id uuid, p_messages integer, p_tokens integer, p_cost numeric) returns void
language sql set search_path = '' as $$
  insert into public.usage_metrics as d (user_id, date, total_messages, total_tokens, total_cost, exact_cost)
  values (
    p_user_id, (clock_timestamp() at time zone 'utc')::date, p_messages, coalesce(p_tokens, 0),
    private.specified_cost(coalesce(p_cost, 0)), coalesce(p_cost, 0)
  )
  on conflict (user_id, date) do update set
    total_messages = d.total_messages + excluded.total_messages,
    total_tokens = private.specified_tokens(d.total_tokens::bigint + excluded.total_tokens),
    total_cost = private.specified_cost(d.exact_cost + excluded.exact_cost),
    exact_cost = d.exact_cost + excluded.exact_cost
$$;

-- The user's profile is locked first, as everywhere, so that the rows do not change while they are summed.
create or replace function private.ledger_changed() returns trigger
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

create or replace trigger ledger_changed after insert or update or delete on public.ledger
  for each row execute function private.ledger_changed();

-- Sums over all days, as text so that no digit is lost on the way through JSON. The reader's own policies apply.
create or replace view public.usage_totals with (security_invoker = true) as
  select
    user_id,
    sum(total_messages)::bigint as total_messages,
    sum(total_tokens)::bigint as total_tokens,
    sum(exact_cost)::text as total_cost
  from public.usage_metrics
  group by user_id;

-- Usage by UTC day and model. Money as text, so that no digit is lost in JSON.
create or replace view public.usage_by_model with (security_invoker = true) as
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

revoke all on public.usage_totals, public.usage_by_model from public, anon, authenticated;
grant select on public.usage_totals, public.usage_by_model to authenticated, service_role;

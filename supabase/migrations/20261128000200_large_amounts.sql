-- Amounts that the specified columns cannot hold: those saturate, the exact ones do not. Without this a day of more than
-- $9,999.999999 raised an error at each change of it, so that nothing of that user's was settled or accepted any more.

-- As decimal(10, 6) holds it.
create function private.specified_cost(p_cost numeric) returns numeric
language sql immutable strict set search_path = '' as $$
  select least(round(p_cost, 6), 9999.999999)
$$;

-- As an integer holds it.
create function private.specified_tokens(p_tokens numeric) returns integer
language sql immutable strict set search_path = '' as $$
  select least(p_tokens, 2147483647)::integer
$$;

-- As before; but the message's columns saturate.
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

-- As before; but the specified columns saturate.
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

-- As before; but the specified columns saturate.
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

-- As before, by what the specified columns hold.
create or replace function public.ledger_deviations(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  with by_turn as (
    select l.turn_id, sum(l.cost) as cost, sum(l.total_tokens) as tokens
    from public.ledger l where l.user_id = p_user_id and l.counted and l.turn_id is not null group by l.turn_id
  ), by_day as (
    select l.date, coalesce(sum(l.cost), 0) as cost, sum(l.total_tokens) as tokens
    from public.ledger l where l.user_id = p_user_id and l.counted group by l.date
  ), figures as (
    select 'turn' as what, t.id::text as which,
      coalesce(t.cost, 0) as cost, coalesce((t.usage ->> 'total_tokens')::bigint, 0) as tokens,
      coalesce(s.cost, 0) as true_cost, coalesce(s.tokens, 0) as true_tokens
    from public.turns t left join by_turn s on s.turn_id = t.id where t.user_id = p_user_id
    union all
    select 'message', m.id::text, coalesce(m.cost, 0), coalesce(m.tokens_used, 0),
      private.specified_cost(coalesce(s.cost, 0)), private.specified_tokens(coalesce(s.tokens, 0))
    from public.messages m left join by_turn s on s.turn_id = m.turn_id
    where m.user_id = p_user_id and m.role = 'assistant'
    union all
    select 'day', coalesce(s.date, d.date)::text, coalesce(d.total_cost, 0), coalesce(d.total_tokens, 0),
      private.specified_cost(coalesce(s.cost, 0)), private.specified_tokens(coalesce(s.tokens, 0))
    from (select * from public.usage_metrics where user_id = p_user_id) d full join by_day s on s.date = d.date
    union all
    select 'exact day', d.date::text, d.exact_cost, 0, coalesce(s.cost, 0), 0
    from public.usage_metrics d left join by_day s on s.date = d.date where d.user_id = p_user_id
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'what', f.what, 'which', f.which,
    'stored', f.tokens || ' tokens, $' || f.cost, 'derived', f.true_tokens || ' tokens, $' || f.true_cost
  )), '[]')
  from figures f where (f.cost, f.tokens) is distinct from (f.true_cost, f.true_tokens)
$$;

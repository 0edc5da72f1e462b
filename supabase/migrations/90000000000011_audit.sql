-- Audits: reading the ledger, and verifying all figures that are derived from it.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

create or replace function public.ledger_rows(p_user_id uuid, p_first date, p_last date, p_skip integer, p_limit integer)
returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'request_id', l.request_id, 'turn_id', l.turn_id, 'status', l.status, 'outcome', l.outcome, 'model', l.model,
    'prompt_tokens', l.prompt_tokens, 'completion_tokens', l.completion_tokens, 'cached_tokens', l.cached_tokens,
    'reasoning_tokens', l.reasoning_tokens, 'cost', l.cost::text, 'started_at', l.started_at, 'flag', l.flag
  ) order by l.started_at, l.request_id), '[]')
  from (
    select * from public.ledger l
    where l.user_id = p_user_id and l.date between p_first and p_last
    order by l.started_at, l.request_id offset p_skip limit p_limit
  ) l
$$;

create or replace function public.model_key_hashes(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(k.key_hash order by k.created_at), '[]') from public.model_keys k where k.user_id = p_user_id
$$;

create or replace function public.ledger_users(p_after uuid, p_limit integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(u.user_id order by u.user_id), '[]')
  from (
    select b.user_id from public.billing_accounts b
    where p_after is null or b.user_id > p_after order by b.user_id limit p_limit
  ) u
$$;

-- The figures of a user that differ from the sum of the ledger's rows, within the range of the specified columns.
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

revoke all on function
  public.ledger_rows(uuid, date, date, integer, integer), public.model_key_hashes(uuid),
  public.ledger_users(uuid, integer), public.ledger_deviations(uuid)
from public, anon, authenticated;
grant execute on function
  public.ledger_rows(uuid, date, date, integer, integer), public.model_key_hashes(uuid),
  public.ledger_users(uuid, integer), public.ledger_deviations(uuid)
to service_role;

-- Budgets: LiteLLM is the authority for limits and periods; what was spent is summed from the ledger, which is exact
-- and has the newest turn.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- The user's budget: the current period, and what was spent in it. LiteLLM begins a new period at its reset time.
create or replace view public.budget_standings with (security_invoker = true) as
  select
    b.user_id,
    b.budget_limit::text as "limit",
    coalesce((
      select sum(l.cost) from public.ledger l
      where l.user_id = b.user_id and l.counted and l.started_at >= b.started_at
    ), 0)::text as spent,
    b.budget_period as period,
    nullif(b.started_at, '-infinity') as started_at, -- null: LiteLLM was not asked yet
    case when b.budget_resets_at > now() then b.budget_resets_at end as resets_at
  from (
    select a.user_id, a.budget_limit, a.budget_period, a.budget_resets_at, case
      when a.budget_resets_at <= now() then a.budget_resets_at else coalesce(a.budget_started_at, '-infinity')
    end as started_at
    from public.billing_accounts a
  ) b;

revoke all on public.budget_standings from public, anon, authenticated;
grant select on public.budget_standings to authenticated, service_role;

-- The budget's members in the error of a turn that the budget refused.
create or replace function private.budget_facts(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(
    (
      select jsonb_build_object('spent', s.spent, 'limit', s."limit", 'resets_at', s.resets_at)
      from public.budget_standings s where s.user_id = p_user_id
    ),
    '{}'
  )
$$;

-- The error of a turn that is not sent because the budget is used up; null if it is not.
create or replace function private.over_budget(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'code', 'budget_exceeded', 'message', 'The budget of this period is used up.', 'retryable', true,
    'retry_after', null, 'spent', s.spent, 'limit', s."limit", 'resets_at', s.resets_at
  )
  from public.budget_standings s where s.user_id = p_user_id and s.spent::numeric >= s."limit"::numeric
$$;

-- Store a turn as unsent.
create or replace function private.leave_unsent(p_turn_id uuid, p_error jsonb) returns void
language sql set search_path = '' as $$
  update public.turns set status = 'unsent', error = p_error, finished_at = clock_timestamp() where id = p_turn_id;
  update public.messages set status = 'unsent' where turn_id = p_turn_id and role = 'user'
$$;

-- The error of a message that is not stored because the budget is used up and too many turns of this period are unsent;
-- else null. `p_but` is not counted: a turn that is unsent already, or may become so again.
create or replace function private.refuse_unsent(p_user_id uuid, p_max_unsent integer, p_but uuid default null) returns jsonb
language sql stable set search_path = '' as $$
  select b.error from (select private.over_budget(p_user_id) as error) b
  where b.error is not null and p_max_unsent <= (
    select count(*) from public.turns t
    where t.user_id = p_user_id and t.status = 'unsent' and t.id is distinct from p_but
      and t.finished_at >= coalesce(
        (select s.started_at from public.budget_standings s where s.user_id = p_user_id), '-infinity'
      )
  )
$$;

-- The highest warning level of the budget that is reached and was not reported in this period: {spent, limit,
-- level}, level in per cent; null if there is none. Marks it as reported.
create or replace function private.budget_warning(p_user_id uuid) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_standing record;
  v_level integer;
begin
  select s.spent, s."limit", s.started_at into v_standing
    from public.budget_standings s where s.user_id = p_user_id and s."limit" is not null;
  if not found then
    return null;
  end if;
  v_level := case
    when v_standing.spent::numeric >= v_standing."limit"::numeric then 100
    when v_standing.spent::numeric >= 0.8 * v_standing."limit"::numeric then 80
    else 0
  end;
  update public.billing_accounts set warned_level = v_level, warned_period = v_standing.started_at
    where user_id = p_user_id
      and (warned_period is distinct from v_standing.started_at or warned_level < v_level);
  if not found or v_level = 0 then
    return null;
  end if;
  return jsonb_build_object('spent', v_standing.spent, 'limit', v_standing."limit", 'level', v_level);
end
$$;

-- LiteLLM's `30s`, `30m`, `30h`, `30d`, `1mo` as an interval.
create or replace function private.period_of(p_period text) returns interval
language sql immutable set search_path = '' as $$
  select case
    when p_period ~ '^[0-9]+mo$' then make_interval(months => left(p_period, -2)::integer)
    when p_period ~ '^[0-9]+s$' then make_interval(secs => left(p_period, -1)::integer)
    when p_period ~ '^[0-9]+m$' then make_interval(mins => left(p_period, -1)::integer)
    when p_period ~ '^[0-9]+h$' then make_interval(hours => left(p_period, -1)::integer)
    when p_period ~ '^[0-9]+d$' then make_interval(days => left(p_period, -1)::integer)
    when p_period ~ '^[0-9]+w$' then make_interval(weeks => left(p_period, -1)::integer)
  end
$$;

-- Store the user's budget as LiteLLM reports it. If a passed reset time was replaced, it began a new period; if none
-- was known, the period has the length of its name, and does not begin before the user's registration.
create or replace function public.remember_budget(
  p_user_id uuid, p_limit numeric, p_period text, p_resets_at timestamptz
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles;
  v_known public.billing_accounts;
  v_started_at timestamptz;
begin
  select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  if not found then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  select * into v_known from public.billing_accounts where user_id = p_user_id;
  v_started_at := case
    when p_resets_at is null then v_profile.created_at
    when v_known.budget_resets_at is null then
      greatest(v_profile.created_at, p_resets_at - private.period_of(p_period))
    when v_known.budget_resets_at <> p_resets_at and v_known.budget_resets_at <= clock_timestamp() then
      v_known.budget_resets_at
    else v_known.budget_started_at
  end;
  insert into public.billing_accounts as b (
    user_id, budget_limit, budget_period, budget_started_at, budget_resets_at, budget_read_at
  )
    values (p_user_id, p_limit, p_period, v_started_at, p_resets_at, clock_timestamp())
  on conflict (user_id) do update set
    -- A raised limit is warned of again when it is reached.
    warned_level = case when b.budget_limit is distinct from excluded.budget_limit then 0 else b.warned_level end,
    budget_limit = excluded.budget_limit, budget_period = excluded.budget_period,
    budget_started_at = excluded.budget_started_at, budget_resets_at = excluded.budget_resets_at,
    budget_read_at = excluded.budget_read_at;
  return jsonb_build_object('outcome', 'ok', 'over_budget', private.over_budget(p_user_id) is not null);
end
$$;

revoke all on function
  public.remember_budget(uuid, numeric, text, timestamptz)
from public, anon, authenticated;
grant execute on function
  public.remember_budget(uuid, numeric, text, timestamptz)
to service_role;

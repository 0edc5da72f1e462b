-- Budgets: LiteLLM is the authority and is asked for limits and periods; what was spent of them is summed from the ledger,
-- which is exact and knows of the newest turn. Service role only.

-- Where the user stands: the current period, and what was spent in it. LiteLLM begins a new one at its reset time.
create view public.budget_standings with (security_invoker = true) as
  select
    b.user_id,
    b.budget_limit::text as "limit",
    coalesce((
      select sum(l.cost) from public.ledger l
      where l.user_id = b.user_id and l.counted and l.started_at >= b.started_at
    ), 0)::text as spent,
    b.budget_period as period,
    nullif(b.started_at, '-infinity') as started_at, -- LiteLLM has not told yet
    case when b.budget_resets_at > now() then b.budget_resets_at end as resets_at
  from (
    select a.user_id, a.budget_limit, a.budget_period, a.budget_resets_at, case
      when a.budget_resets_at <= now() then a.budget_resets_at else coalesce(a.budget_started_at, '-infinity')
    end as started_at
    from public.billing_accounts a
  ) b;
revoke all on public.budget_standings from public, anon, authenticated;
grant select on public.budget_standings to authenticated, service_role;
grant select (user_id, budget_limit, budget_period, budget_started_at, budget_resets_at)
  on public.billing_accounts to authenticated;
create policy billing_accounts_own on public.billing_accounts
  for select to authenticated using ((select auth.uid()) = user_id);

create function private.budget_facts(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(
    (
      select jsonb_build_object('spent', s.spent, 'limit', s."limit", 'resets_at', s.resets_at)
      from public.budget_standings s where s.user_id = p_user_id
    ),
    '{}'
  )
$$;

-- The error of a turn that may not be sent because the budget is used up; null while it is not.
create function private.over_budget(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'code', 'budget_exceeded', 'message', 'The budget of this period is used up.', 'retryable', true,
    'retry_after', null, 'spent', s.spent, 'limit', s."limit", 'resets_at', s.resets_at
  )
  from public.budget_standings s where s.user_id = p_user_id and s.spent::numeric >= s."limit"::numeric
$$;

-- Keep a message that may not be sent.
create function private.leave_unsent(p_turn_id uuid, p_error jsonb) returns void
language sql set search_path = '' as $$
  update public.turns set status = 'unsent', error = p_error, finished_at = clock_timestamp() where id = p_turn_id;
  update public.messages set status = 'unsent' where turn_id = p_turn_id and role = 'user'
$$;

-- The highest step of the budget that was reached and not warned of in this period: {spent, limit, level}, level in per
-- cent. Null: none. It counts as warned of.
create function private.budget_warning(p_user_id uuid) returns jsonb
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

-- Take over what LiteLLM says of the user's budget. A reset time that has passed and been replaced began a new period;
-- where none was known, the period is as long as it is called, and not older than the user.
create function public.remember_budget(
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

-- LiteLLM's `30s`, `30m`, `30h`, `30d`, `1mo` as an interval.
create function private.period_of(p_period text) returns interval
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

-- As before; and a turn that is new is kept as unsent where the budget is used up.
create or replace function private.admit(
  p_user_id uuid, p_turn_id uuid, p_owner text, p_start boolean, p_duplicate boolean
) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_fence bigint := private.take_session(p_user_id, p_owner);
  v_over_budget jsonb := case when not p_duplicate then private.over_budget(p_user_id) end;
  v_turn public.turns;
  v_started boolean;
begin
  if v_over_budget is not null then
    perform private.leave_unsent(p_turn_id, v_over_budget);
  elsif p_start and v_fence is not null and p_turn_id = (
    select t.id from public.turns t
    where t.user_id = p_user_id and t.status in ('queued', 'running')
    order by t.status = 'running' desc, t.number
    limit 1
  ) and exists (select from public.turns t where t.id = p_turn_id and t.status = 'queued') then
    perform private.run_turn(p_turn_id);
  end if;
  select * into v_turn from public.turns where id = p_turn_id;
  v_started := v_turn.status = 'running' and v_fence is not null;
  return jsonb_build_object(
    'outcome', 'ok',
    'turn', private.turn_json(v_turn),
    'duplicate', p_duplicate,
    'started', v_started,
    'fence', v_fence,
    'forgotten', case when v_started then private.forgotten_json(p_user_id, p_turn_id) else '[]' end
  );
end
$$;

-- As before; but a message that the budget does not allow interrupts nothing.
create or replace function public.accept_turn(
  p_user_id uuid,
  p_client_message_id text,
  p_content text,
  p_content_hash text,
  p_on_busy text,
  p_owner text,
  p_start boolean,
  p_max_waiting integer,
  p_overloaded boolean
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_refusal text := private.refuse_account(p_user_id);
  v_turn public.turns;
  v_running uuid;
  v_waiting uuid[];
  v_now timestamptz := clock_timestamp();
  v_interrupts boolean;
begin
  if v_refusal is not null then
    return jsonb_build_object('outcome', v_refusal);
  end if;

  select * into v_turn from public.turns
    where user_id = p_user_id and client_message_id = p_client_message_id;
  if found then
    if v_turn.content_hash <> p_content_hash then
      return jsonb_build_object('outcome', 'id_conflict');
    end if;
    return private.admit(p_user_id, v_turn.id, p_owner, p_start, true);
  end if;
  if p_overloaded then
    return jsonb_build_object('outcome', 'overloaded');
  end if;

  select t.id into v_running from public.turns t where t.user_id = p_user_id and t.status = 'running';
  select coalesce(array_agg(t.id order by t.number), '{}') into v_waiting
    from public.turns t where t.user_id = p_user_id and t.status = 'queued';
  if p_on_busy = 'reject' and (v_running is not null or cardinality(v_waiting) > 0) then
    return jsonb_build_object('outcome', 'busy');
  elsif p_on_busy <> 'interrupt' and cardinality(v_waiting) >= p_max_waiting then
    return jsonb_build_object('outcome', 'queue_full');
  end if;
  v_interrupts := p_on_busy = 'interrupt' and private.over_budget(p_user_id) is null;
  if v_interrupts then
    perform private.cancel_turns(p_user_id, v_waiting || v_running);
  end if;

  insert into public.turns (user_id, number, client_message_id, content_hash, created_at)
    select p_user_id, coalesce(max(t.number), 0) + 1, p_client_message_id, p_content_hash, v_now
    from public.turns t where t.user_id = p_user_id
    returning * into v_turn;
  insert into public.messages (user_id, turn_id, role, content, position, created_at)
    values (p_user_id, v_turn.id, 'user', p_content, 2 * v_turn.number, v_now);
  perform private.count_usage(p_user_id, 1, 0, 0);

  return private.admit(p_user_id, v_turn.id, p_owner, p_start, false) || case
    when v_interrupts then jsonb_build_object(
      'cancelled', (
        select coalesce(jsonb_agg(private.turn_json(t) order by t.number), '[]')
        from public.turns t where t.id = any (v_waiting)
      ),
      'interrupted', (select private.turn_json(t) from public.turns t where t.id = v_running)
    )
    else '{}'
  end;
end
$$;

-- As before; where the budget is used up meanwhile, the first waiting turn is left unsent and returned as such.
create or replace function public.start_turn(p_user_id uuid, p_owner text, p_fence bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_turn public.turns;
  v_over_budget jsonb;
begin
  if not private.holds(p_user_id, p_owner, p_fence) then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  select * into v_turn from public.turns t
    where t.user_id = p_user_id and t.status in ('queued', 'running')
    order by t.status = 'running' desc, t.number
    limit 1;
  if not found then
    return jsonb_build_object('outcome', 'idle');
  end if;
  if v_turn.status = 'queued' then
    v_over_budget := private.over_budget(p_user_id);
    if v_over_budget is null then
      perform private.run_turn(v_turn.id);
    else
      perform private.leave_unsent(v_turn.id, v_over_budget);
    end if;
    select * into v_turn from public.turns where id = v_turn.id;
  end if;
  return jsonb_build_object(
    'outcome', 'ok', 'turn', private.turn_json(v_turn), 'forgotten', private.forgotten_json(p_user_id, v_turn.id)
  );
end
$$;

revoke all on function
  public.remember_budget(uuid, numeric, text, timestamptz), public.start_turn(uuid, text, bigint)
from public, anon, authenticated;
grant execute on function
  public.remember_budget(uuid, numeric, text, timestamptz), public.start_turn(uuid, text, bigint)
to service_role;

-- Reconciliation of the ledger with LiteLLM's spend log: the users whose calls are due to be read, and entering the
-- calls.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- Store the hash of a user's key, which LiteLLM logs. A replaced key stays valid for some time.
create or replace function private.key_changed() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  update public.model_keys set replaced_at = clock_timestamp()
    where user_id = new.id and key_hash <> new.litellm_key_hash and replaced_at is null;
  insert into public.model_keys (key_hash, user_id) values (new.litellm_key_hash, new.id)
    on conflict (key_hash) do update set replaced_at = null where model_keys.user_id = excluded.user_id;
  return null;
end
$$;

create or replace trigger key_changed after insert or update of litellm_key_hash on public.user_profiles
  for each row when (new.litellm_key_hash is not null) execute function private.key_changed();

-- Read the user's calls soon: an attempt has ended.
create or replace function private.look_soon(p_user_id uuid) returns void
language sql set search_path = '' as $$
  insert into public.billing_accounts as b (user_id, look_at)
    values (p_user_id, clock_timestamp() + interval '2 seconds')
  on conflict (user_id) do update set look_at = least(coalesce(b.look_at, excluded.look_at), excluded.look_at)
$$;

-- Whether calls of an attempt may still appear in the log: it is not settled, or it was interrupted, and a call that
-- continued is logged only at its end.
create or replace function private.is_awaited(p_attempt public.attempts) returns boolean
language sql stable set search_path = '' as $$
  select p_attempt.ended_at is not null and (
    p_attempt.settled_at is null
    or (p_attempt.outcome <> 'completed' and p_attempt.sent_at is not null
      and p_attempt.ended_at > now() - interval '12 minutes')
  )
$$;

-- The time of the next read if this one finds nothing new: soon after the last attempt's end, with backoff while its
-- calls do not appear, once after the agent's calls at its end are logged, hourly while late calls may appear; then
-- null.
create or replace function private.next_look(p_user_id uuid) returns timestamptz
language sql volatile set search_path = '' as $$
  select case
    when bool_or(private.is_awaited(a)) then now() + least(greatest(
      (now() - max(a.ended_at) filter (where private.is_awaited(a))) / 3, interval '2 seconds'
    ), interval '5 minutes')
    when max(a.ended_at) > now() - interval '20 seconds' then max(a.ended_at) + interval '20 seconds'
    when max(a.ended_at) > now() - interval '25 hours' then now() + interval '1 hour'
  end
  from public.attempts a where a.user_id = p_user_id
    and (a.settled_at is null or a.started_at > now() - interval '2 days')
$$;

-- The input of a search: the user's attempts since then, with the one before, and the calls that are in the ledger
-- already.
create or replace function private.search_json(p_user_id uuid, p_since timestamptz) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'user_id', p_user_id,
    'since', p_since,
    'key_hashes', (
      select coalesce(jsonb_agg(k.key_hash), '[]') from public.model_keys k
      where k.user_id = p_user_id and (k.replaced_at is null or k.replaced_at > p_since - interval '1 hour')
    ),
    'attempts', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'turn_id', a.turn_id, 'attempt', a.attempt, 'sent_at', coalesce(a.sent_at, a.started_at),
        'stopped_at', a.stopped_at, 'ended_at', a.ended_at, 'outcome', a.outcome, 'usage', a.usage,
        'is_settled', a.settled_at is not null
      ) order by a.started_at), '[]')
      from public.attempts a
      where a.user_id = p_user_id
        and not (a.ended_at is not null and a.sent_at is null)
        and a.started_at >= coalesce(
          (select max(b.started_at) from public.attempts b where b.user_id = p_user_id and b.started_at < p_since),
          p_since
        )
    ),
    'known', (
      select coalesce(jsonb_object_agg(l.request_id, jsonb_build_object(
        'turn_id', l.turn_id, 'attempt', l.attempt, 'cost', l.cost::text
      )), '{}')
      from public.ledger l
      where l.user_id = p_user_id and l.started_at >= p_since - interval '1 hour' and l.source = 'litellm'
    )
  )
$$;

create or replace function private.charge_json(p_turn public.turns) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'turn_id', p_turn.id, 'attempt', p_turn.attempt, 'usage', p_turn.usage, 'cost', p_turn.cost::text,
    'cost_status', p_turn.cost_status
  )
$$;

-- Claim users whose calls are due to be read. Each claim postpones the next read, so that other instances do not
-- read the same user, and a failed read is repeated. Settled attempts are read once more for the agent's housekeeping,
-- which may have been logged later; while other calls are awaited, at most every 20 seconds. Once an hour the last 24
-- hours are read again.
create or replace function public.claim_settlements(p_limit integer) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_account public.billing_accounts;
  v_now timestamptz;
  v_since timestamptz;
  v_settled_since timestamptz;
  v_reread boolean;
  v_housekeeping boolean;
  v_work jsonb := '[]';
begin
  for v_account in
    select * from public.billing_accounts b
    where b.look_at <= clock_timestamp()
    order by b.look_at
    limit p_limit
    for update skip locked
  loop
    v_now := clock_timestamp();
    v_reread := v_account.reread_at < v_now - interval '1 hour';
    select
      min(a.started_at) filter (where private.is_awaited(a)),
      min(a.started_at) filter (
        where a.ended_at > v_account.housekeeping_read_at - interval '15 seconds'
          and a.ended_at <= v_now - interval '15 seconds'
      )
      into v_since, v_settled_since
      from public.attempts a where a.user_id = v_account.user_id
        and (a.settled_at is null or a.started_at > v_now - interval '2 days');
    v_housekeeping := v_settled_since is not null
      and (v_since is null or v_account.housekeeping_read_at < v_now - interval '20 seconds');
    if v_housekeeping then
      v_since := least(v_since, v_settled_since);
    end if;
    if v_reread then
      v_since := least(v_since, v_now - interval '24 hours');
    end if;
    update public.billing_accounts set
      look_at = private.next_look(v_account.user_id),
      reread_at = case when v_reread then v_now else reread_at end,
      housekeeping_read_at = case when v_housekeeping then v_now else housekeeping_read_at end
    where user_id = v_account.user_id;
    if v_since is not null then
      v_work := v_work || private.search_json(v_account.user_id, v_since);
    end if;
  end loop;
  return jsonb_build_object('now', clock_timestamp(), 'work', v_work);
end
$$;

-- The input of a search for one user, whether it is due or not: for operators.
create or replace function public.search_settlement(p_user_id uuid, p_since timestamptz) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('now', clock_timestamp(), 'work', private.search_json(p_user_id, p_since))
$$;

-- Enter LiteLLM's calls, given as the text of {calls: […], settled: [{turn_id, attempt, flag, written_off}]}. A call
-- that is in the ledger keeps its turn, if it has one; all else is updated to what LiteLLM says now. A call of another
-- user is never changed. Where an attempt is settled, its calls replace its estimate; an estimate without them is
-- written off.
create or replace function public.settle_usage(p_user_id uuid, p_found text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_found jsonb := p_found::jsonb;
  v_settled jsonb;
  v_turn_ids uuid[];
  v_before jsonb;
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  if not found then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  select coalesce(array_agg(distinct (x ->> 'turn_id')::uuid), '{}') into v_turn_ids
    from (
      select jsonb_array_elements(v_found -> 'calls') as x union all select jsonb_array_elements(v_found -> 'settled')
    ) touched where x ->> 'turn_id' is not null;
  select coalesce(jsonb_object_agg(t.id, private.charge_json(t)), '{}') into v_before
    from public.turns t where t.user_id = p_user_id and t.id = any (v_turn_ids);

  for v_settled in select jsonb_array_elements(v_found -> 'settled') loop
    update public.attempts set settled_at = coalesce(settled_at, clock_timestamp()), flag = v_settled ->> 'flag'
      where user_id = p_user_id and turn_id = (v_settled ->> 'turn_id')::uuid
        and attempt = (v_settled ->> 'attempt')::integer;
    if (v_settled ->> 'written_off')::boolean then
      update public.ledger set status = 'written_off', flag = v_settled ->> 'flag'
        where user_id = p_user_id and request_id = 'estimate:' || (v_settled ->> 'turn_id') || ':' ||
          (v_settled ->> 'attempt') and status = 'estimated';
    else
      delete from public.ledger where user_id = p_user_id and request_id =
        'estimate:' || (v_settled ->> 'turn_id') || ':' || (v_settled ->> 'attempt');
    end if;
  end loop;

  insert into public.ledger as l (
    user_id, turn_id, attempt, request_id, status, source, outcome, model, prompt_tokens, completion_tokens,
    cached_tokens, reasoning_tokens, price, cost, started_at, ended_at, flag
  )
    select
      p_user_id, c.turn_id, c.attempt, c.request_id, 'settled', 'litellm', c.outcome, c.model, c.prompt_tokens,
      c.completion_tokens, c.cached_tokens, c.reasoning_tokens, c.price, c.cost, c.started_at, c.ended_at, c.flag
    from jsonb_to_recordset(v_found -> 'calls') as c (
      turn_id uuid, attempt integer, request_id text, outcome text, model text, prompt_tokens integer,
      completion_tokens integer, cached_tokens integer, reasoning_tokens integer, price jsonb, cost numeric,
      started_at timestamptz, ended_at timestamptz, flag text
    )
  on conflict (request_id) do update set
    turn_id = coalesce(l.turn_id, excluded.turn_id),
    attempt = coalesce(l.attempt, excluded.attempt),
    outcome = excluded.outcome, model = excluded.model, prompt_tokens = excluded.prompt_tokens,
    completion_tokens = excluded.completion_tokens, cached_tokens = excluded.cached_tokens,
    reasoning_tokens = excluded.reasoning_tokens, price = excluded.price, cost = excluded.cost,
    started_at = excluded.started_at, ended_at = excluded.ended_at
  where l.user_id = excluded.user_id and (
    coalesce(l.turn_id, excluded.turn_id), l.outcome, l.model, l.prompt_tokens, l.completion_tokens, l.cached_tokens,
    l.reasoning_tokens, l.price, l.cost, l.started_at, l.ended_at
  ) is distinct from (
    l.turn_id, excluded.outcome, excluded.model, excluded.prompt_tokens, excluded.completion_tokens,
    excluded.cached_tokens, excluded.reasoning_tokens, excluded.price, excluded.cost, excluded.started_at, excluded.ended_at
  );

  perform private.derive_turn(id) from unnest(v_turn_ids) id;
  return jsonb_build_object(
    'outcome', 'ok',
    'turns', (
      select coalesce(jsonb_agg(private.charge_json(t) order by t.number), '[]') from public.turns t
      where t.user_id = p_user_id and t.id = any (v_turn_ids)
        and v_before -> t.id::text is distinct from private.charge_json(t)
    ),
    'warning', private.budget_warning(p_user_id)
  );
end
$$;

revoke all on function
  public.claim_settlements(integer), public.search_settlement(uuid, timestamptz), public.settle_usage(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.claim_settlements(integer), public.search_settlement(uuid, timestamptz), public.settle_usage(uuid, text)
to service_role;

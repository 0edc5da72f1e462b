-- Accepting turns, retrying and cancelling them. Expected refusals are an `outcome`, and then nothing was stored.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- Seconds until the user may send at this rate (messages per minute, 0 for no limit); null: now. A token bucket:
-- each message costs 60 s / rate, with a burst of a minute. The database's clock is used for all instances.
create or replace function private.pause_before(p_user_id uuid, p_per_minute integer) returns numeric
language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := clock_timestamp();
  v_ahead interval;
begin
  if p_per_minute <= 0 then
    return null;
  end if;
  select greatest(s.paced_until - v_now, interval '0') into v_ahead from public.sessions s where s.user_id = p_user_id;
  v_ahead := coalesce(v_ahead, interval '0') + interval '60 seconds' / p_per_minute - interval '60 seconds';
  return case when v_ahead > interval '0' then extract(epoch from v_ahead) end;
end
$$;

-- Count an accepted message. The session's row exists: `admit` has created it.
create or replace function private.count_message(p_user_id uuid, p_per_minute integer) returns void
language sql set search_path = '' as $$
  update public.sessions
    set paced_until = greatest(paced_until, clock_timestamp()) + interval '60 seconds' / nullif(p_per_minute, 0)
    where user_id = p_user_id and p_per_minute > 0
$$;

-- Cancel waiting turns; mark the running one.
create or replace function private.cancel_turns(p_user_id uuid, p_turn_ids uuid[]) returns void
language sql set search_path = '' as $$
  update public.turns set
    cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
    finished_at = case when status = 'queued' then clock_timestamp() end,
    status = case when status = 'queued' then 'cancelled' else status end
  where user_id = p_user_id and id = any (p_turn_ids) and status in ('queued', 'running')
$$;

-- The end of accepting and retrying: claim the session if it has no other owner, start the turn if it is the next, and
-- return it. A new turn is stored as unsent where the budget is used up. `started` says that the turn runs under the
-- caller's own lease, also when an earlier call began it.
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
    'mark', private.log_mark(p_user_id, v_fence),
    'forgotten', case when v_started then private.forgotten_json(p_user_id, p_turn_id) else '[]' end
  );
end
$$;

-- Store a message as a turn, once per client_message_id. Limits: `rate_limited` with `retry_after` in seconds,
-- `budget_exceeded` with `error`. An interrupt counts against the queue's limit, too: while the running turn is
-- stopping, at most that many messages are accepted. A message that the budget does not allow interrupts nothing.
create or replace function public.accept_turn(
  p_user_id uuid,
  p_client_message_id text,
  p_content text,
  p_content_hash text,
  p_on_busy text,
  p_owner text,
  p_start boolean,
  p_max_waiting integer,
  p_overloaded boolean,
  p_max_unsent integer default 20,
  p_per_minute integer default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_refusal text := private.refuse_account(p_user_id);
  v_turn public.turns;
  v_running public.turns;
  v_waiting uuid[];
  v_now timestamptz := clock_timestamp();
  v_pause numeric;
  v_over_budget jsonb;
  v_interrupts boolean;
  v_taken bigint; -- of the places in the queue
  v_answer jsonb;
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
  v_pause := private.pause_before(p_user_id, p_per_minute);
  if v_pause is not null then
    return jsonb_build_object('outcome', 'rate_limited', 'retry_after', v_pause);
  end if;

  select * into v_running from public.turns t where t.user_id = p_user_id and t.status = 'running';
  select coalesce(array_agg(t.id order by t.number), '{}') into v_waiting
    from public.turns t where t.user_id = p_user_id and t.status = 'queued';
  if p_on_busy = 'reject' and (v_running.id is not null or cardinality(v_waiting) > 0) then
    return jsonb_build_object('outcome', 'busy');
  end if;
  v_over_budget := private.refuse_unsent(p_user_id, p_max_unsent);
  if v_over_budget is not null then
    return jsonb_build_object('outcome', 'budget_exceeded', 'error', v_over_budget);
  end if;
  v_interrupts := p_on_busy = 'interrupt' and private.over_budget(p_user_id) is null;
  v_taken := case
    when v_interrupts then (
      select count(*) from public.turns t
      where t.user_id = p_user_id and t.number > v_running.number and t.created_at > v_running.cancel_requested_at
    )
    else cardinality(v_waiting)
  end;
  if v_taken >= p_max_waiting then
    return jsonb_build_object('outcome', 'queue_full');
  end if;
  if v_interrupts then
    perform private.cancel_turns(p_user_id, v_waiting || v_running.id);
  end if;

  insert into public.turns (user_id, number, client_message_id, content_hash, created_at)
    select p_user_id, coalesce(max(t.number), 0) + 1, p_client_message_id, p_content_hash, v_now
    from public.turns t where t.user_id = p_user_id
    returning * into v_turn;
  insert into public.messages (user_id, turn_id, role, content, position, created_at)
    values (p_user_id, v_turn.id, 'user', p_content, 2 * v_turn.number, v_now);
  perform private.count_usage(p_user_id, 1, 0, 0);

  v_answer := private.admit(p_user_id, v_turn.id, p_owner, p_start, false) || case
    when v_interrupts then jsonb_build_object(
      'cancelled', (
        select coalesce(jsonb_agg(private.turn_json(t) order by t.number), '[]')
        from public.turns t where t.id = any (v_waiting)
      ),
      'interrupted', (select private.turn_json(t) from public.turns t where t.id = v_running.id)
    )
    else '{}'
  end;
  perform private.count_message(p_user_id, p_per_minute);
  return v_answer;
end
$$;

-- Queue an ended turn again as its next attempt, within the same limits.
create or replace function public.retry_turn(
  p_user_id uuid,
  p_turn_id uuid,
  p_owner text,
  p_start boolean,
  p_max_waiting integer,
  p_overloaded boolean,
  p_max_unsent integer default 20,
  p_per_minute integer default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_refusal text := private.refuse_account(p_user_id);
  v_turn public.turns;
  v_pause numeric;
  v_over_budget jsonb;
  v_answer jsonb;
begin
  if v_refusal is not null then
    return jsonb_build_object('outcome', v_refusal);
  end if;
  select * into v_turn from public.turns where user_id = p_user_id and id = p_turn_id and content_hash <> '';
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  elsif v_turn.status in ('queued', 'running') then
    return private.admit(p_user_id, p_turn_id, p_owner, p_start, true);
  elsif v_turn.status = 'completed' then
    return jsonb_build_object('outcome', 'not_retryable');
  elsif p_overloaded then
    return jsonb_build_object('outcome', 'overloaded');
  end if;
  v_pause := private.pause_before(p_user_id, p_per_minute);
  if v_pause is not null then
    return jsonb_build_object('outcome', 'rate_limited', 'retry_after', v_pause);
  end if;
  v_over_budget := private.refuse_unsent(p_user_id, p_max_unsent, p_turn_id);
  if v_over_budget is not null then
    return jsonb_build_object('outcome', 'budget_exceeded', 'error', v_over_budget);
  end if;
  if (select count(*) from public.turns t where t.user_id = p_user_id and t.status = 'queued') >= p_max_waiting then
    return jsonb_build_object('outcome', 'queue_full');
  end if;
  update public.turns
    set status = 'queued', attempt = attempt + 1, error = null, finished_at = null, cancel_requested_at = null
    where id = p_turn_id;
  update public.messages set status = 'complete' where user_id = p_user_id and position = 2 * v_turn.number;
  v_answer := private.admit(p_user_id, p_turn_id, p_owner, p_start, false);
  perform private.count_message(p_user_id, p_per_minute);
  return v_answer;
end
$$;

-- Cancel a turn; without an id, the running turn, else the next. Needs no lease.
create or replace function public.request_cancel(p_user_id uuid, p_turn_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_turn public.turns;
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  select * into v_turn from public.turns t
    where t.user_id = p_user_id
      and case
        when p_turn_id is null then t.status in ('queued', 'running')
        else t.id = p_turn_id and t.content_hash <> '' -- not of a deleted history
      end
    order by t.status = 'running' desc, t.number
    limit 1;
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  end if;
  perform private.cancel_turns(p_user_id, array[v_turn.id]);
  select * into v_turn from public.turns where id = v_turn.id;
  return jsonb_build_object('outcome', 'ok', 'turn', private.turn_json(v_turn));
end
$$;

revoke all on function
  public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean, integer, integer),
  public.retry_turn(uuid, uuid, text, boolean, integer, boolean, integer, integer), public.request_cancel(uuid, uuid)
from public, anon, authenticated;
grant execute on function
  public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean, integer, integer),
  public.retry_turn(uuid, uuid, text, boolean, integer, boolean, integer, integer), public.request_cancel(uuid, uuid)
to service_role;

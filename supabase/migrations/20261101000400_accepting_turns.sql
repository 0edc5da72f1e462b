-- Taking in turns: accepting, retrying, cancelling. Expected refusals are an `outcome`, and then nothing was stored.
-- Service role only.

-- Make a waiting turn the running one. What an earlier attempt left is put aside, not lost.
create function private.run_turn(p_turn_id uuid) returns void
language sql set search_path = '' as $$
  update public.turns set
    status = 'running',
    past_run_ids = array_remove(past_run_ids || run_id, null),
    run_id = null,
    carried_by = null,
    cancel_requested_at = null,
    started_at = clock_timestamp()
  where id = p_turn_id
$$;

-- Cancel turns that wait; mark the running one.
create function private.cancel_turns(p_user_id uuid, p_turn_ids uuid[]) returns void
language sql set search_path = '' as $$
  update public.turns set
    cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()),
    finished_at = case when status = 'queued' then clock_timestamp() end,
    status = case when status = 'queued' then 'cancelled' else status end
  where user_id = p_user_id and id = any (p_turn_ids) and status in ('queued', 'running')
$$;

-- The end of accepting and retrying: claim the session if it can be had, start the turn if it is its turn, and answer.
-- `started` says that the turn runs under the caller's own lease, also when an earlier call began it.
create function private.admit(p_user_id uuid, p_turn_id uuid, p_owner text, p_start boolean, p_duplicate boolean)
returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_fence bigint := private.take_session(p_user_id, p_owner);
  v_turn public.turns;
  v_started boolean;
begin
  if p_start and v_fence is not null and p_turn_id = (
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

create function public.accept_turn(
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
  elsif p_on_busy = 'interrupt' then
    perform private.cancel_turns(p_user_id, v_waiting || v_running);
  elsif cardinality(v_waiting) >= p_max_waiting then
    return jsonb_build_object('outcome', 'queue_full');
  end if;

  insert into public.turns (user_id, number, client_message_id, content_hash, created_at)
    select p_user_id, coalesce(max(t.number), 0) + 1, p_client_message_id, p_content_hash, v_now
    from public.turns t where t.user_id = p_user_id
    returning * into v_turn;
  insert into public.messages (user_id, turn_id, role, content, position, created_at)
    values (p_user_id, v_turn.id, 'user', p_content, 2 * v_turn.number, v_now);
  perform private.count_usage(p_user_id, 1, 0, 0);

  return private.admit(p_user_id, v_turn.id, p_owner, p_start, false) || case
    when p_on_busy = 'interrupt' then jsonb_build_object(
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

create function public.retry_turn(
  p_user_id uuid, p_turn_id uuid, p_owner text, p_start boolean, p_max_waiting integer, p_overloaded boolean
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_refusal text := private.refuse_account(p_user_id);
  v_turn public.turns;
begin
  if v_refusal is not null then
    return jsonb_build_object('outcome', v_refusal);
  end if;
  select * into v_turn from public.turns where user_id = p_user_id and id = p_turn_id;
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  elsif v_turn.status in ('queued', 'running') then
    return private.admit(p_user_id, p_turn_id, p_owner, p_start, true);
  elsif v_turn.status = 'completed' then
    return jsonb_build_object('outcome', 'not_retryable');
  elsif p_overloaded then
    return jsonb_build_object('outcome', 'overloaded');
  elsif (select count(*) from public.turns t where t.user_id = p_user_id and t.status = 'queued') >= p_max_waiting then
    return jsonb_build_object('outcome', 'queue_full');
  end if;
  update public.turns
    set status = 'queued', attempt = attempt + 1, error = null, finished_at = null, cancel_requested_at = null
    where id = p_turn_id;
  update public.messages set status = 'complete' where user_id = p_user_id and position = 2 * v_turn.number;
  return private.admit(p_user_id, p_turn_id, p_owner, p_start, false);
end
$$;

-- Needs no lease: anybody who may speak for the user may cancel. Without an id, the running turn, else the next.
create function public.request_cancel(p_user_id uuid, p_turn_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_turn public.turns;
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  select * into v_turn from public.turns t
    where t.user_id = p_user_id
      and case when p_turn_id is null then t.status in ('queued', 'running') else t.id = p_turn_id end
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
  public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean),
  public.retry_turn(uuid, uuid, text, boolean, integer, boolean), public.request_cancel(uuid, uuid)
from public, anon, authenticated;
grant execute on function
  public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean),
  public.retry_turn(uuid, uuid, text, boolean, integer, boolean), public.request_cancel(uuid, uuid)
to service_role;

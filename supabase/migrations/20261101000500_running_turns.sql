-- Running turns: every function here refuses anybody but the holder of the newest fence, and may be called again after a
-- lost answer. Service role only.

-- Make the first waiting turn the running one. A turn that runs already is the answer to a call whose answer was lost.
create function public.start_turn(p_user_id uuid, p_owner text, p_fence bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_turn public.turns;
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
    perform private.run_turn(v_turn.id);
    select * into v_turn from public.turns where id = v_turn.id;
  end if;
  return jsonb_build_object(
    'outcome', 'ok', 'turn', private.turn_json(v_turn), 'forgotten', private.forgotten_json(p_user_id, v_turn.id)
  );
end
$$;

create function public.set_run(
  p_user_id uuid, p_owner text, p_fence bigint, p_turn_id uuid, p_attempt integer, p_run_id text
) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  if not private.holds(p_user_id, p_owner, p_fence) then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  update public.turns set run_id = p_run_id
    where user_id = p_user_id and id = p_turn_id and attempt = p_attempt and status = 'running';
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- Store the reply of an ended attempt. An attempt without text keeps the partial reply of an earlier one.
create function private.store_reply(p_turn public.turns, p_text text) returns void
language plpgsql set search_path = '' as $$
declare
  v_position bigint := 2 * p_turn.number + 1;
  v_tokens integer := (p_turn.usage ->> 'total_tokens')::integer;
  v_known boolean;
begin
  update public.messages set tokens_used = v_tokens, cost = round(p_turn.cost, 6)
    where user_id = p_turn.user_id and position = v_position;
  v_known := found;
  if p_text = '' and p_turn.status <> 'completed' then
    return;
  end if;
  insert into public.messages (user_id, turn_id, role, content, tokens_used, cost, position, status, created_at)
    values (
      p_turn.user_id, p_turn.id, 'assistant', p_text, v_tokens, round(p_turn.cost, 6), v_position,
      case when p_turn.status = 'completed' then 'complete' else 'partial' end, clock_timestamp()
    )
    on conflict (user_id, position) do update set content = excluded.content, status = excluded.status;
  if not v_known then
    perform private.count_usage(p_turn.user_id, 1, 0, 0);
  end if;
end
$$;

-- End an attempt, given as the text of {turn_id, attempt, status, text, usage, cost, cost_status, error, carried}. An
-- attempt that has ended is returned as it is stored.
create function public.finish_turn(p_user_id uuid, p_owner text, p_fence bigint, p_end text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_end jsonb := p_end::jsonb;
  v_turn public.turns;
  v_status text := v_end ->> 'status';
  v_usage jsonb := nullif(v_end -> 'usage', 'null');
  v_cost numeric := (v_end ->> 'cost')::numeric;
  v_error jsonb := nullif(v_end -> 'error', 'null');
begin
  if not private.holds(p_user_id, p_owner, p_fence) then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  select * into v_turn from public.turns where user_id = p_user_id and id = (v_end ->> 'turn_id')::uuid;
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  end if;
  if v_turn.status in ('queued', 'running') and v_turn.attempt = (v_end ->> 'attempt')::integer then
    if v_status = 'unsent' then
      update public.turns set status = v_status, error = v_error, started_at = null, finished_at = clock_timestamp()
        where id = v_turn.id returning * into v_turn;
      update public.messages set status = 'unsent' where user_id = p_user_id and position = 2 * v_turn.number;
    else
      update public.turns set
        status = v_status,
        error = v_error,
        usage = private.add_usage(usage, v_usage),
        cost = case when v_cost is null then cost else coalesce(cost, 0) + v_cost end,
        cost_status = coalesce(v_end ->> 'cost_status', cost_status),
        finished_at = clock_timestamp()
      where id = v_turn.id returning * into v_turn;
      perform private.count_usage(p_user_id, 0, (v_usage ->> 'total_tokens')::integer, v_cost);
      perform private.store_reply(v_turn, v_end ->> 'text');
    end if;
    if v_status = 'completed' then
      update public.turns set carried_by = v_turn.id
        where user_id = p_user_id and carried_by is null
          and id in (select c::uuid from jsonb_array_elements_text(v_end -> 'carried') c);
    end if;
  end if;
  return jsonb_build_object('outcome', 'ok', 'turn', private.turn_json(v_turn));
end
$$;

create function public.open_turns(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'running', private.running_json(p_user_id), 'queued', private.queued_json(p_user_id)
  )
$$;

create function public.get_turn(p_user_id uuid, p_turn_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select private.turn_json(t) from public.turns t where t.user_id = p_user_id and t.id = p_turn_id
$$;

-- The turn one of whose attempts was the given run of the agent.
create function public.turn_by_run(p_user_id uuid, p_run_id text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select private.turn_json(t) from public.turns t where t.user_id = p_user_id and t.run_id = p_run_id
  union all
  select private.turn_json(t) from public.turns t
    where t.user_id = p_user_id and t.past_run_ids <> '{}' and p_run_id = any (t.past_run_ids)
  limit 1
$$;

revoke all on function
  public.start_turn(uuid, text, bigint), public.set_run(uuid, text, bigint, uuid, integer, text),
  public.finish_turn(uuid, text, bigint, text), public.open_turns(uuid), public.get_turn(uuid, uuid),
  public.turn_by_run(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.start_turn(uuid, text, bigint), public.set_run(uuid, text, bigint, uuid, integer, text),
  public.finish_turn(uuid, text, bigint, text), public.open_turns(uuid), public.get_turn(uuid, uuid),
  public.turn_by_run(uuid, text)
to service_role;

-- Running turns: each function with a fence refuses callers without the newest one, and can be repeated after a lost
-- response.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- Start a waiting turn. The run of an earlier attempt is appended to `past_run_ids`.
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

-- Start the first waiting turn. If a turn is running already, it is returned: the response of an earlier call was
-- lost. If the budget is used up, the first waiting turn becomes unsent and is returned as such.
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

-- Store the agent's run of this attempt.
create or replace function public.set_run(
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

-- Store the reply of an ended attempt, text and steps. If it has no text, the partial text of an earlier attempt is kept,
-- together with the steps of that attempt. `p_end` as in finish_turn.
create or replace function private.store_reply(p_turn public.turns, p_end jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  v_position bigint := 2 * p_turn.number + 1;
  v_text text := p_end ->> 'text';
  v_steps jsonb := nullif(nullif(p_end -> 'steps', '[]'), 'null'); -- absent from instances of an earlier release
  v_earlier public.messages;
begin
  select * into v_earlier from public.messages m where m.user_id = p_turn.user_id and m.position = v_position;
  if p_turn.status <> 'completed' and v_text = '' and (v_steps is null or v_earlier.content <> '') then
    return;
  end if;
  if v_earlier.id is null then
    perform private.count_usage(p_turn.user_id, 1, 0, 0);
  end if;
  insert into public.messages (user_id, turn_id, role, content, steps, position, status, created_at)
    values (
      p_turn.user_id, p_turn.id, 'assistant', v_text, v_steps, v_position,
      case when p_turn.status = 'completed' then 'complete' else 'partial' end, clock_timestamp()
    )
    on conflict (user_id, position) do update
      set content = excluded.content, steps = excluded.steps, status = excluded.status;
end
$$;

-- Store how an attempt ended, and what it is estimated to have cost until LiteLLM's rows say. `p_end` as in
-- finish_turn. An attempt whose run completed has reported all its model calls, also where its turn failed.
create or replace function private.end_attempt(p_turn public.turns, p_end jsonb) returns void
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
    outcome = case when (p_end ->> 'run_completed')::boolean then 'completed' else p_end ->> 'status' end,
    run_id = p_turn.run_id,
    usage = v_usage,
    -- An attempt that was not sent has no charges.
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

-- End an attempt, given as the text of {turn_id, attempt, status, text, steps, usage, estimate, sent_after, error,
-- reason, carried, run_completed}. An attempt that has ended is returned as it is stored.
create or replace function public.finish_turn(p_user_id uuid, p_owner text, p_fence bigint, p_end text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_end jsonb := p_end::jsonb;
  v_turn public.turns;
  v_status text := v_end ->> 'status';
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
    if v_error ->> 'code' = 'budget_exceeded' then
      v_error := v_error || private.budget_facts(p_user_id);
    end if;
    update public.turns set
      status = v_status,
      error = v_error,
      reason = v_end ->> 'reason',
      started_at = case when v_status = 'unsent' then null else started_at end,
      finished_at = clock_timestamp()
    where id = v_turn.id returning * into v_turn;
    if v_status = 'unsent' then
      update public.messages set status = 'unsent' where user_id = p_user_id and position = 2 * v_turn.number;
    else
      perform private.store_reply(v_turn, v_end);
    end if;
    perform private.end_attempt(v_turn, v_end);
    perform private.look_soon(p_user_id);
    update public.turns set carried_by = v_turn.id
      where user_id = p_user_id and carried_by is null
        and id in (select c::uuid from jsonb_array_elements_text(v_end -> 'carried') c);
    select * into v_turn from public.turns where id = v_turn.id;
  end if;
  return jsonb_build_object('outcome', 'ok', 'turn', private.turn_json(v_turn));
end
$$;

revoke all on function
  public.start_turn(uuid, text, bigint), public.set_run(uuid, text, bigint, uuid, integer, text),
  public.finish_turn(uuid, text, bigint, text)
from public, anon, authenticated;
grant execute on function
  public.start_turn(uuid, text, bigint), public.set_run(uuid, text, bigint, uuid, integer, text),
  public.finish_turn(uuid, text, bigint, text)
to service_role;

-- How turns end: why a completed one has no text, runs that completed without anything to read, and turns that are not
-- told to the agent again although they failed.

alter table public.turns add column reason text; -- why a completed turn has no text
grant select (reason) on public.turns to authenticated;

comment on column public.turns.carried_by is
  'the turn after which the agent need not be told of this one: it was, or the model refuses it whenever it is sent';

-- As before, with the reason.
create or replace function private.turn_json(p_turn public.turns) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', p_turn.id,
    'user_id', p_turn.user_id,
    'number', p_turn.number,
    'client_message_id', p_turn.client_message_id,
    'status', p_turn.status,
    'attempt', p_turn.attempt,
    'run_id', p_turn.run_id,
    'cancel_requested_at', p_turn.cancel_requested_at,
    'error', p_turn.error,
    'reason', p_turn.reason,
    'usage', p_turn.usage,
    'cost', p_turn.cost::text,
    'cost_status', p_turn.cost_status,
    'created_at', p_turn.created_at,
    'started_at', p_turn.started_at,
    'finished_at', p_turn.finished_at,
    'user_message', (
      select private.message_json(m) from public.messages m
      where m.user_id = p_turn.user_id and m.position = 2 * p_turn.number
    ),
    'message', (
      select private.message_json(m) from public.messages m
      where m.user_id = p_turn.user_id and m.position = 2 * p_turn.number + 1
    ),
    'queue_position', case when p_turn.status = 'queued' then (
      select count(*) from public.turns t
      where t.user_id = p_turn.user_id and t.status = 'queued' and t.number <= p_turn.number
    ) end
  )
$$;

-- As before; an attempt whose run completed has reported all its model calls, also where its turn failed.
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
    -- Nothing can have been charged for what was never sent.
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

-- End an attempt, given as the text of {turn_id, attempt, status, text, usage, estimate, sent_after, error, reason,
-- carried, run_completed}. An attempt that has ended is returned as it is stored.
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
      perform private.store_reply(v_turn, v_end ->> 'text');
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

revoke all on function public.finish_turn(uuid, text, bigint, text) from public, anon, authenticated;
grant execute on function public.finish_turn(uuid, text, bigint, text) to service_role;

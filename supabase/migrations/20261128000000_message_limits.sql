-- How many messages a user may store: so many per minute, retries included, by one clock for all instances; and so many
-- that the budget did not allow. Service role only.

-- Each message is worth 60 s / rate; those taken so far are worth the time until then. A user may be a minute ahead.
alter table public.sessions add column paced_until timestamptz;

create index turns_unsent on public.turns (user_id, finished_at) where status = 'unsent';

-- Seconds until the user may send at this rate (messages per minute, 0 for any); null: now.
create function private.pause_before(p_user_id uuid, p_per_minute integer) returns numeric
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

-- Count a message that was taken. The session's row is there: whatever is taken has passed `admit`.
create function private.count_message(p_user_id uuid, p_per_minute integer) returns void
language sql set search_path = '' as $$
  update public.sessions
    set paced_until = greatest(paced_until, clock_timestamp()) + interval '60 seconds' / p_per_minute
    where user_id = p_user_id and p_per_minute > 0
$$;

-- Why nothing more is kept for a user whose budget is used up: the error of the budget, where as many turns as are kept
-- unsent were left so in this period. `p_but` is a turn that is one of them already, or may become so again.
create function private.refuse_unsent(p_user_id uuid, p_max_unsent integer, p_but uuid default null) returns jsonb
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

-- As before, within the limits: `rate_limited` with `retry_after` in seconds, `budget_exceeded` with `error`. An interrupt
-- counts against the queue's limit, too: while the running turn is stopping, so many messages are taken at most.
drop function public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean);
create function public.accept_turn(
  p_user_id uuid,
  p_client_message_id text,
  p_content text,
  p_content_hash text,
  p_on_busy text,
  p_owner text,
  p_start boolean,
  p_max_waiting integer,
  p_overloaded boolean,
  p_max_unsent integer default 20, -- as an instance of the last release calls it
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

-- As before, within the same limits.
drop function public.retry_turn(uuid, uuid, text, boolean, integer, boolean);
create function public.retry_turn(
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
  select * into v_turn from public.turns where user_id = p_user_id and id = p_turn_id;
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

revoke all on function
  public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean, integer, integer),
  public.retry_turn(uuid, uuid, text, boolean, integer, boolean, integer, integer)
from public, anon, authenticated;
grant execute on function
  public.accept_turn(uuid, text, text, text, text, text, boolean, integer, boolean, integer, integer),
  public.retry_turn(uuid, uuid, text, boolean, integer, boolean, integer, integer)
to service_role;

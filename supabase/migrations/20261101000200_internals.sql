-- What the public functions are made of. Nobody but their owner may enter this schema.
--
-- Every function that changes a user's turns or session first locks that user's profile row, then touches the session,
-- then the turns: one order everywhere, so that nothing deadlocks and each function sees the others' work whole.

create schema private;
revoke all on schema private from public;

-- How long a session is held without a heartbeat.
create function private.lease() returns interval
language sql immutable set search_path = '' as $$
  select interval '12 seconds'
$$;

-- Lock the user's profile, creating it if this is the first we see of the user. Null id: Auth knows no such user.
create function private.lock_profile(p_user_id uuid, p_email text default null, p_name text default null)
returns public.user_profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.user_profiles;
begin
  select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  if not found then
    insert into public.user_profiles (id, email, name, agent_status)
      select u.id, coalesce(p_email, u.email), p_name, 'provisioning' from auth.users u where u.id = p_user_id
      on conflict (id) do nothing;
    select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  end if;
  return v_profile;
end
$$;

-- Lock the profile of a user who wants a turn. Returns why that is refused, null if it is not.
create function private.refuse_account(p_user_id uuid) returns text
language plpgsql set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id);
begin
  return case
    when v_profile.id is null then 'no_account'
    when v_profile.agent_status in ('blocked', 'deleting') then 'account_blocked'
  end;
end
$$;

-- Lock the profile and tell whether the caller still holds the user's session.
create function private.holds(p_user_id uuid, p_owner text, p_fence bigint) returns boolean
language plpgsql set search_path = '' as $$
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  return exists (
    select from public.sessions s where s.user_id = p_user_id and s.owner = p_owner and s.fence = p_fence
  );
end
$$;

-- Take a session that is free or whose lease is over (a new fence), or renew one's own (the same). Null: another's.
create function private.take_session(p_user_id uuid, p_owner text) returns bigint
language sql set search_path = '' as $$
  insert into public.sessions as s (user_id, owner, fence, heartbeat_at)
  values (p_user_id, p_owner, 1, clock_timestamp())
  on conflict (user_id) do update set
    owner = excluded.owner,
    fence = case
      when s.owner = excluded.owner and s.heartbeat_at > clock_timestamp() - private.lease() then s.fence
      else s.fence + 1
    end,
    heartbeat_at = excluded.heartbeat_at
  where s.owner is null or s.owner = excluded.owner or s.heartbeat_at <= clock_timestamp() - private.lease()
  returning s.fence
$$;

create function private.message_json(p_message public.messages) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', p_message.id,
    'turn_id', p_message.turn_id,
    'role', p_message.role,
    'content', p_message.content,
    'status', p_message.status,
    'tokens_used', p_message.tokens_used,
    'cost', p_message.cost::text,
    'created_at', p_message.created_at,
    'position', p_message.position
  )
$$;

-- A turn as the adapter reads it: with its messages, and its place among those that wait (1 is next).
create function private.turn_json(p_turn public.turns) returns jsonb
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

create function private.running_json(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select private.turn_json(t) from public.turns t where t.user_id = p_user_id and t.status = 'running'
$$;

create function private.queued_json(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(private.turn_json(t) order by t.number), '[]')
  from public.turns t where t.user_id = p_user_id and t.status = 'queued'
$$;

-- What the agent has to be told again before the given turn is sent: turns that were sent, failed or were cancelled, and
-- that no completed turn has carried since. The newest ten, in order.
create function private.forgotten_json(p_user_id uuid, p_turn_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(
    jsonb_build_object('turn_id', f.id, 'user_text', u.content, 'partial_reply', coalesce(a.content, ''))
    order by f.number
  ), '[]')
  from (
    select t.id, t.user_id, t.number from public.turns t
    where t.user_id = p_user_id and t.status in ('failed', 'cancelled') and t.carried_by is null
      and t.started_at is not null and t.id <> p_turn_id
    order by t.number desc
    limit 10
  ) f
  join public.messages u on u.user_id = f.user_id and u.position = 2 * f.number
  left join public.messages a on a.user_id = f.user_id and a.position = 2 * f.number + 1
$$;

-- Add to the user's UTC day.
create function private.count_usage(p_user_id uuid, p_messages integer, p_tokens integer, p_cost numeric) returns void
language sql set search_path = '' as $$
  insert into public.usage_metrics as d (user_id, date, total_messages, total_tokens, total_cost, exact_cost)
  values (
    p_user_id, (clock_timestamp() at time zone 'utc')::date, p_messages, coalesce(p_tokens, 0),
    round(coalesce(p_cost, 0), 6), coalesce(p_cost, 0)
  )
  on conflict (user_id, date) do update set
    total_messages = d.total_messages + excluded.total_messages,
    total_tokens = d.total_tokens + excluded.total_tokens,
    total_cost = round(d.exact_cost + excluded.exact_cost, 6),
    exact_cost = d.exact_cost + excluded.exact_cost
$$;

-- The sum of two usage objects, field by field.
create function private.add_usage(p_sum jsonb, p_more jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select case when p_more is null then p_sum else (
    select jsonb_object_agg(field, coalesce((p_sum ->> field)::bigint, 0) + coalesce((p_more ->> field)::bigint, 0))
    from jsonb_object_keys(coalesce(p_sum, '{}') || p_more) field
  ) end
$$;

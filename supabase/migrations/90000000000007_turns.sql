-- Turns as they are read.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

create or replace function private.message_json(p_message public.messages) returns jsonb
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

-- A turn as the adapter reads it: with its messages, and its position in the queue (1 is next).
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

create or replace function private.running_json(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select private.turn_json(t) from public.turns t where t.user_id = p_user_id and t.status = 'running'
$$;

create or replace function private.queued_json(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(private.turn_json(t) order by t.number), '[]')
  from public.turns t where t.user_id = p_user_id and t.status = 'queued'
$$;

-- The turns that the agent is reminded of before the given turn is sent: those that were sent, failed or were
-- cancelled, and that no later turn has carried since. The newest ten, in order.
create or replace function private.forgotten_json(p_user_id uuid, p_turn_id uuid) returns jsonb
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

create or replace function public.open_turns(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'running', private.running_json(p_user_id), 'queued', private.queued_json(p_user_id)
  )
$$;

-- A turn whose history was deleted has no messages any more: to its user it does not exist.
create or replace function public.get_turn(p_user_id uuid, p_turn_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select private.turn_json(t) from public.turns t
  where t.user_id = p_user_id and t.id = p_turn_id and t.content_hash <> ''
$$;

-- The turn with an attempt that was the given run of the agent. Turns of a deleted history have no runs.
create or replace function public.turn_by_run(p_user_id uuid, p_run_id text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select private.turn_json(t) from public.turns t where t.user_id = p_user_id and t.run_id = p_run_id
  union all
  select private.turn_json(t) from public.turns t
    where t.user_id = p_user_id and t.past_run_ids <> '{}' and p_run_id = any (t.past_run_ids)
  limit 1
$$;

revoke all on function
  public.open_turns(uuid), public.get_turn(uuid, uuid), public.turn_by_run(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.open_turns(uuid), public.get_turn(uuid, uuid), public.turn_by_run(uuid, text)
to service_role;

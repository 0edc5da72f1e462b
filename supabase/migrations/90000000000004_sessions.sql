-- Sessions: claiming, renewing and releasing the lease under which one owner runs a user's turns.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- The duration of a lease without a heartbeat.
create or replace function private.lease() returns interval
language sql immutable set search_path = '' as $$
  select interval '12 seconds'
$$;

-- Lock the profile and return whether the caller still holds the session's lease.
create or replace function private.holds(p_user_id uuid, p_owner text, p_fence bigint) returns boolean
language plpgsql set search_path = '' as $$
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  return exists (
    select from public.sessions s where s.user_id = p_user_id and s.owner = p_owner and s.fence = p_fence
  );
end
$$;

-- Claim a session without a valid lease (new fence), or renew the caller's lease (same fence). Null: another owner
-- holds it.
create or replace function private.take_session(p_user_id uuid, p_owner text) returns bigint
language sql set search_path = '' as $$
  insert into public.sessions as s (user_id, owner, fence, heartbeat_at)
  values (p_user_id, p_owner, 1, clock_timestamp())
  on conflict (user_id) do update set
    owner = excluded.owner,
    fence = case
      when s.owner = excluded.owner and s.heartbeat_at > clock_timestamp() - private.lease() then s.fence
      else s.fence + 1
    end,
    -- The owner may have appended to the log since it was given the mark.
    log_epoch = case
      when s.owner = excluded.owner and s.heartbeat_at > clock_timestamp() - private.lease() then null
      else s.log_epoch
    end,
    heartbeat_at = excluded.heartbeat_at
  where s.owner is null or s.owner = excluded.owner or s.heartbeat_at <= clock_timestamp() - private.lease()
  returning s.fence
$$;

-- The end of the event log when the owner before this fence released the session; null if it is not known.
create or replace function private.log_mark(p_user_id uuid, p_fence bigint) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('epoch', s.log_epoch, 'head', s.log_head)
  from public.sessions s
  where s.user_id = p_user_id and s.log_fence = p_fence - 1 and s.log_epoch is not null
$$;

-- Claim the lease and return the user's open turns. `running_for` is the age of the running turn in seconds, by the
-- database's clock, since the instances' clocks may be wrong.
create or replace function public.claim_session(p_user_id uuid, p_owner text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id);
  v_fence bigint;
  v_running public.turns;
begin
  if v_profile.id is null then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  v_fence := private.take_session(p_user_id, p_owner);
  if v_fence is null then
    return jsonb_build_object('outcome', 'held');
  end if;
  select * into v_running from public.turns t where t.user_id = p_user_id and t.status = 'running';
  return jsonb_build_object(
    'outcome', 'ok',
    'fence', v_fence,
    'mark', private.log_mark(p_user_id, v_fence),
    'running', case when v_running.id is not null then private.turn_json(v_running) end,
    'running_for', coalesce(extract(epoch from clock_timestamp() - v_running.started_at), 0),
    'forgotten', case
      when v_running.id is null then '[]' else private.forgotten_json(p_user_id, v_running.id)
    end,
    'queued', private.queued_json(p_user_id)
  );
end
$$;

-- Renew the leases of all sessions of an owner. Returns user id → fence of those it still holds.
create or replace function public.renew_sessions(p_owner text) returns jsonb
language sql security definer set search_path = '' as $$
  with mine as (
    select user_id from public.sessions where owner = p_owner order by user_id for no key update
  ), renewed as (
    update public.sessions s set heartbeat_at = clock_timestamp()
    from mine where s.user_id = mine.user_id and s.owner = p_owner
    returning s.user_id, s.fence
  )
  select coalesce(jsonb_object_agg(user_id, fence), '{}') from renewed
$$;

-- Release the lease. `p_unless_open`: keep it (outcome `open`) while turns wait or run, which another instance may
-- have added at this moment, relying on the owner to run them. The epoch and head say where the event log stops, for
-- the next owner; null where that is not known.
create or replace function public.release_session(
  p_user_id uuid, p_owner text, p_fence bigint, p_unless_open boolean, p_log_epoch text, p_log_head bigint
) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  if not private.holds(p_user_id, p_owner, p_fence) then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  if p_unless_open and exists (
    select from public.turns t where t.user_id = p_user_id and t.status in ('queued', 'running')
  ) then
    return jsonb_build_object('outcome', 'open');
  end if;
  update public.sessions
  set owner = null, log_epoch = p_log_epoch, log_head = p_log_head, log_fence = p_fence
  where user_id = p_user_id;
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- The signature that instances of the previous release call.
create or replace function public.release_session(
  p_user_id uuid, p_owner text, p_fence bigint, p_unless_open boolean default false
) returns jsonb
language sql security definer set search_path = '' as $$
  select public.release_session(p_user_id, p_owner, p_fence, p_unless_open, null, null)
$$;

-- Users with waiting or running turns and without a valid lease, the longest waiting first.
create or replace function public.unowned_work(p_limit integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(user_id order by since), '[]')
  from (
    select t.user_id, min(t.created_at) as since
    from public.turns t
    where t.status in ('queued', 'running') and not exists (
      select from public.sessions s
      where s.user_id = t.user_id and s.owner is not null and s.heartbeat_at > clock_timestamp() - private.lease()
    )
    group by t.user_id
    order by since
    limit p_limit
  ) unowned
$$;

-- Sessions of this owner with waiting turns, or with a cancelled running turn, which other instances may have changed.
create or replace function public.owned_work(p_owner text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'user_id', work.user_id, 'waiting', work.waiting, 'cancelled', work.cancelled
  )), '[]')
  from (
    select
      t.user_id,
      coalesce(jsonb_agg(t.id) filter (where t.status = 'queued'), '[]') as waiting,
      min(t.id::text) filter (where t.status = 'running') as cancelled
    from public.sessions s
    join public.turns t on t.user_id = s.user_id
    where s.owner = p_owner
      and (t.status = 'queued' or (t.status = 'running' and t.cancel_requested_at is not null))
    group by t.user_id
  ) work
$$;

revoke all on function
  public.claim_session(uuid, text), public.renew_sessions(text), public.release_session(uuid, text, bigint, boolean),
  public.release_session(uuid, text, bigint, boolean, text, bigint),
  public.unowned_work(integer), public.owned_work(text)
from public, anon, authenticated;
grant execute on function
  public.claim_session(uuid, text), public.renew_sessions(text), public.release_session(uuid, text, bigint, boolean),
  public.release_session(uuid, text, bigint, boolean, text, bigint),
  public.unowned_work(integer), public.owned_work(text)
to service_role;

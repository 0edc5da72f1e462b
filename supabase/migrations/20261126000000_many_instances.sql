-- Several instances: what others changed in the rows of one's own sessions, and giving a session up only when nothing is
-- open. Service role only.

-- Sessions of this owner with turns that wait, or a running turn that was asked to stop.
create function public.owned_work(p_owner text) returns jsonb
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

-- Give a session up. `p_unless_open`: keep it (outcome `open`) while turns wait or run, which another instance may have
-- added this very moment, believing that its owner would see to them.
drop function public.release_session(uuid, text, bigint);
create function public.release_session(
  p_user_id uuid, p_owner text, p_fence bigint, p_unless_open boolean default false
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
  update public.sessions set owner = null where user_id = p_user_id;
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- As before, and for how many seconds the running turn has been running by this clock: instances' own may be wrong.
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
    'running', case when v_running.id is not null then private.turn_json(v_running) end,
    'running_for', coalesce(extract(epoch from clock_timestamp() - v_running.started_at), 0),
    'forgotten', case
      when v_running.id is null then '[]' else private.forgotten_json(p_user_id, v_running.id)
    end,
    'queued', private.queued_json(p_user_id)
  );
end
$$;

revoke all on function
  public.owned_work(text), public.release_session(uuid, text, bigint, boolean), public.claim_session(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.owned_work(text), public.release_session(uuid, text, bigint, boolean), public.claim_session(uuid, text)
to service_role;

-- Sessions: taking, keeping and giving up the right to run a user's turns. Service role only.

create function public.claim_session(p_user_id uuid, p_owner text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id);
  v_fence bigint;
  v_running jsonb;
begin
  if v_profile.id is null then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  v_fence := private.take_session(p_user_id, p_owner);
  if v_fence is null then
    return jsonb_build_object('outcome', 'held');
  end if;
  v_running := private.running_json(p_user_id);
  return jsonb_build_object(
    'outcome', 'ok',
    'fence', v_fence,
    'running', v_running,
    'forgotten', case
      when v_running is null then '[]' else private.forgotten_json(p_user_id, (v_running ->> 'id')::uuid)
    end,
    'queued', private.queued_json(p_user_id)
  );
end
$$;

-- One heartbeat for all sessions of an owner: user id → fence of those it still holds.
create function public.renew_sessions(p_owner text) returns jsonb
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

create function public.release_session(p_user_id uuid, p_owner text, p_fence bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  if not private.holds(p_user_id, p_owner, p_fence) then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  update public.sessions set owner = null where user_id = p_user_id;
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- Users whose turns wait or run while nobody holds their session, the longest waiting first.
create function public.unowned_work(p_limit integer) returns jsonb
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

-- True the first time a ticket is shown. Tickets are forgotten five minutes after their expiry, so one that old is
-- refused whether it is known or not.
create function public.redeem_ticket(p_ticket_id text, p_expires_at timestamptz) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_horizon timestamptz := clock_timestamp() - interval '5 minutes';
begin
  delete from public.tickets where id in (
    select id from public.tickets where expires_at < v_horizon limit 100 for update skip locked
  );
  if p_expires_at < v_horizon then
    return 'false';
  end if;
  insert into public.tickets (id, expires_at) values (p_ticket_id, p_expires_at) on conflict (id) do nothing;
  return to_jsonb(found);
end
$$;

revoke all on function
  public.claim_session(uuid, text), public.renew_sessions(text), public.release_session(uuid, text, bigint),
  public.unowned_work(integer), public.redeem_ticket(text, timestamptz)
from public, anon, authenticated;
grant execute on function
  public.claim_session(uuid, text), public.renew_sessions(text), public.release_session(uuid, text, bigint),
  public.unowned_work(integer), public.redeem_ticket(text, timestamptz)
to service_role;

-- Sign-ins: tickets that are valid once, whether a sign-in is still valid, the device of each, and the addresses that
-- signed in to an account.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- Redeem a ticket. Returns true the first time. Rows are deleted five minutes after the ticket's expiry; a ticket
-- that old is refused without a row, too.
create or replace function public.redeem_ticket(p_ticket_id text, p_expires_at timestamptz) returns jsonb
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

-- Whether a sign-in is still valid, after its access token may have expired. A sign-out deletes Auth's session.
-- Columns that this version of Auth does not have are ignored. Called by the last release only.
create or replace function public.is_signed_in(p_user_id uuid, p_session_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select to_jsonb(exists (
    select from auth.sessions s join auth.users u on u.id = s.user_id
    where s.id = p_session_id and s.user_id = p_user_id
      and coalesce((to_jsonb(s) ->> 'not_after')::timestamptz > now(), true)
      and coalesce((to_jsonb(u) ->> 'banned_until')::timestamptz <= now(), true)
  ))
$$;

-- Hashes of the addresses that signed in to this account, the newest first: each has its own limit of password
-- attempts.
create or replace function public.known_addresses(p_email text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(a.address_hash order by a.seen_at desc), '[]')
  from auth.users u join public.known_addresses a on a.user_id = u.id
  where u.email = p_email
$$;

-- Store the device of a sign-in, unless it has ended, and the hash of its address; of hashes, the newest 20 are kept.
-- Null: no sign-in is named, or no hash is wanted.
create or replace function public.record_sign_in(
  p_user_id uuid, p_session_id uuid, p_user_agent text, p_address text, p_address_hash text
) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  if found and p_address_hash is not null then
    insert into public.known_addresses as a (user_id, address_hash, seen_at)
      values (p_user_id, p_address_hash, clock_timestamp())
    on conflict (user_id, address_hash) do update set seen_at = excluded.seen_at;
    delete from public.known_addresses where user_id = p_user_id and address_hash in (
      select a.address_hash from public.known_addresses a
      where a.user_id = p_user_id order by a.seen_at desc offset 20
    );
  end if;
  insert into public.sign_in_devices (session_id, user_agent, address)
    select s.id, p_user_agent, p_address from auth.sessions s
    where s.id = p_session_id and s.user_id = p_user_id
    for key share
  on conflict (session_id) do update set user_agent = excluded.user_agent, address = excluded.address;
  return '{"outcome": "ok"}';
end
$$;

-- Called by the last release only.
create or replace function public.note_address(p_user_id uuid, p_address_hash text) returns jsonb
language sql security definer set search_path = '' as $$
  select public.record_sign_in(p_user_id, null, null, null, p_address_hash)
$$;

revoke all on function
  public.redeem_ticket(text, timestamptz), public.is_signed_in(uuid, uuid), public.known_addresses(text),
  public.record_sign_in(uuid, uuid, text, text, text), public.note_address(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.redeem_ticket(text, timestamptz), public.is_signed_in(uuid, uuid), public.known_addresses(text),
  public.record_sign_in(uuid, uuid, text, text, text), public.note_address(uuid, text)
to service_role;

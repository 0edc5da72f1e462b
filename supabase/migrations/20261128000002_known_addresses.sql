-- From which addresses an account was signed in to, as hashes: they count for themselves where its passwords are tried.
-- Service role only.

create table public.known_addresses (
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  address_hash text not null check (char_length(address_hash) <= 128),
  seen_at timestamptz not null default now(),
  primary key (user_id, address_hash)
);
alter table public.known_addresses enable row level security;
revoke all on public.known_addresses from public, anon, authenticated;
grant select, insert, update, delete on public.known_addresses to service_role;

create function public.known_addresses(p_email text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(a.address_hash order by a.seen_at desc), '[]')
  from auth.users u join public.known_addresses a on a.user_id = u.id
  where u.email = p_email
$$;

-- Keeps the newest 20.
create function public.note_address(p_user_id uuid, p_address_hash text) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform from public.user_profiles where id = p_user_id for no key update;
  if found then
    insert into public.known_addresses as a (user_id, address_hash, seen_at)
      values (p_user_id, p_address_hash, clock_timestamp())
    on conflict (user_id, address_hash) do update set seen_at = excluded.seen_at;
    delete from public.known_addresses where user_id = p_user_id and address_hash in (
      select a.address_hash from public.known_addresses a
      where a.user_id = p_user_id order by a.seen_at desc offset 20
    );
  end if;
  return '{"outcome": "ok"}';
end
$$;

revoke all on function public.known_addresses(text), public.note_address(uuid, text) from public, anon, authenticated;
grant execute on function public.known_addresses(text), public.note_address(uuid, text) to service_role;

-- API keys, by which scripts act for a user. Of a key only a hash is stored. Users read their own rows, without the
-- hashes; nobody but the service role writes.
create table public.api_keys (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  name text not null check (char_length(name) between 1 and 100),
  prefix text not null unique check (char_length(prefix) between 8 and 32), -- the public part of the key
  secret_hash text not null check (secret_hash ~ '^[0-9a-f]{64}$'), -- SHA-256 of the whole key
  scopes text[] not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'chat', 'account']),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz
);

create index api_keys_user on public.api_keys (user_id);

alter table public.api_keys enable row level security;
revoke all on public.api_keys from public, anon, authenticated;
grant select, insert, update, delete on public.api_keys to service_role;
grant select (id, user_id, name, prefix, scopes, created_at, expires_at, last_used_at)
  on public.api_keys to authenticated;
create policy api_keys_own on public.api_keys
  for select to authenticated using ((select auth.uid()) = user_id);

-- Tables of accounts and sign-ins. `user_profiles` has the specification's columns first, ours after them. Users read their
-- own rows, without keys or coordination columns; nobody but the service role writes.

-- Of functions that other functions are made of. Nobody but their owner may enter this schema.
create schema private;
revoke all on schema private from public;

create table public.user_profiles (
  id uuid primary key references auth.users (id) on delete cascade,
  email text,
  litellm_key text unique, -- ciphertext (`v1:…`), never the key itself
  letta_agent_id text unique,
  agent_status text default 'active'
    check (agent_status in ('provisioning', 'active', 'failed', 'blocked', 'deleting')),
  created_at timestamptz default now(),
  updated_at timestamptz default now(),

  name text,
  status_reason text,
  litellm_key_hash text,
  customer_ready boolean not null default false,
  key_ready boolean not null default false,
  letta_organization_id text,
  letta_member_id text,
  tools_ready boolean not null default false,
  letta_provider_id text,
  letta_conversation_id text,
  config_hash text,
  intent text, -- the provisioning step that was begun and whose result is not recorded yet
  provisioning_owner text,
  provisioning_fence bigint not null default 0,
  provisioning_expires_at timestamptz,
  told_name text -- the name that the user's agent was told; where it differs, the agent is told before the next turn
);

create index user_profiles_unfinished on public.user_profiles (updated_at)
  where agent_status in ('provisioning', 'failed');
create index user_profiles_configuration on public.user_profiles (config_hash, updated_at);

-- Connection tickets that were shown once.
create table public.tickets (
  id text primary key,
  expires_at timestamptz not null
);

create index tickets_expiry on public.tickets (expires_at);

-- From which addresses an account was signed in to, as hashes: each has limits of its own where passwords are tried.
create table public.known_addresses (
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  address_hash text not null check (char_length(address_hash) <= 128),
  seen_at timestamptz not null default now(),
  primary key (user_id, address_hash)
);

alter table public.user_profiles enable row level security;
alter table public.tickets enable row level security;
alter table public.known_addresses enable row level security;
revoke all on public.user_profiles, public.tickets, public.known_addresses from public, anon, authenticated;
grant select, insert, update, delete on public.user_profiles, public.tickets, public.known_addresses to service_role;
grant select (id, email, name, agent_status, status_reason, letta_agent_id, created_at, updated_at)
  on public.user_profiles to authenticated;
create policy user_profiles_own on public.user_profiles
  for select to authenticated using ((select auth.uid()) = id);

-- The rows everything is decided on. user_profiles, messages and usage_metrics carry the specification's columns first,
-- ours after them; turns, sessions and tickets are ours.

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
  provisioning_expires_at timestamptz
);

create index user_profiles_unfinished on public.user_profiles (updated_at)
  where agent_status in ('provisioning', 'failed');
create index user_profiles_configuration on public.user_profiles (config_hash, updated_at);

create table public.turns (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  number bigint not null check (number > 0),
  client_message_id text not null check (char_length(client_message_id) between 1 and 128),
  content_hash text not null,
  status text not null default 'queued'
    check (status in ('queued', 'running', 'completed', 'failed', 'cancelled', 'unsent')),
  attempt integer not null default 1 check (attempt > 0),
  run_id text,
  past_run_ids text[] not null default '{}', -- runs of earlier attempts: a late one must be recognised, not adopted
  cancel_requested_at timestamptz,
  error jsonb,
  usage jsonb, -- summed over the attempts, like cost
  cost numeric, -- US dollars, unrounded
  cost_status text check (cost_status in ('estimated', 'settled', 'written_off')),
  carried_by uuid, -- the completed turn that reminded the agent of this one
  created_at timestamptz not null default now(),
  started_at timestamptz, -- of the latest attempt that was sent
  finished_at timestamptz,
  unique (user_id, number),
  unique (user_id, client_message_id)
);

create unique index turns_one_running on public.turns (user_id) where status = 'running';
create index turns_waiting on public.turns (user_id, number) where status = 'queued';
create index turns_open on public.turns (created_at) where status in ('queued', 'running');
create index turns_forgotten on public.turns (user_id, number)
  where status in ('failed', 'cancelled') and carried_by is null;
create index turns_run on public.turns (user_id, run_id) where run_id is not null;
create index turns_past_runs on public.turns (user_id) where past_run_ids <> '{}';

create table public.messages (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  role text not null check (role in ('user', 'assistant')),
  content text not null,
  tokens_used integer,
  cost decimal(10, 6), -- the turn's cost, rounded
  created_at timestamptz default now(),

  turn_id uuid not null references public.turns (id) on delete cascade,
  position bigint not null, -- 2 · turns.number, + 1 for the assistant's
  status text not null default 'complete' check (status in ('complete', 'partial', 'unsent')),
  unique (user_id, position)
);

create index messages_turn on public.messages (turn_id);

create table public.usage_metrics (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.user_profiles (id) on delete cascade,
  date date default current_date,
  total_messages integer default 0,
  total_tokens integer default 0,
  total_cost decimal(10, 6) default 0,
  unique (user_id, date),

  exact_cost numeric not null default 0 -- total_cost before rounding: many small turns must not round to nothing
);

-- Who may run a user's turns: the owner whose fence is the newest, while its heartbeat is younger than the lease.
create table public.sessions (
  user_id uuid primary key references public.user_profiles (id) on delete cascade,
  owner text,
  fence bigint not null default 0,
  heartbeat_at timestamptz not null default now()
);

create index sessions_owner on public.sessions (owner);

-- Connection tickets that were shown once.
create table public.tickets (
  id text primary key,
  expires_at timestamptz not null
);

create index tickets_expiry on public.tickets (expires_at);

-- Sums over all days, as text so that no digit is lost on the way through JSON. The reader's own policies apply.
create view public.usage_totals with (security_invoker = true) as
  select
    user_id,
    sum(total_messages)::bigint as total_messages,
    sum(total_tokens)::bigint as total_tokens,
    sum(exact_cost)::text as total_cost
  from public.usage_metrics
  group by user_id;

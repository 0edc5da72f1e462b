-- Tables of sessions, turns and messages. `messages` has the specification's columns first, ours after them. Users read
-- their own turns and messages; nobody but the service role writes.

-- Who may run a user's turns: the owner whose fence is the newest, while its heartbeat is younger than the lease.
create table public.sessions (
  user_id uuid primary key references public.user_profiles (id) on delete cascade,
  owner text,
  fence bigint not null default 0,
  heartbeat_at timestamptz not null default now(),
  -- Each message is worth 60 s / rate; those accepted so far are worth the time until then. A user may be a minute ahead.
  paced_until timestamptz
);

create index sessions_owner on public.sessions (owner);

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
  carried_by uuid,
  created_at timestamptz not null default now(),
  started_at timestamptz, -- of the latest attempt that was sent
  finished_at timestamptz,
  reason text, -- why a completed turn has no text
  unique (user_id, number),
  unique (user_id, client_message_id)
);

comment on column public.turns.carried_by is
  'the turn after which the agent need not be told of this one: it was, or the model refuses it whenever it is sent';

create unique index turns_one_running on public.turns (user_id) where status = 'running';
create index turns_waiting on public.turns (user_id, number) where status = 'queued';
create index turns_open on public.turns (created_at) where status in ('queued', 'running');
create index turns_forgotten on public.turns (user_id, number)
  where status in ('failed', 'cancelled') and carried_by is null;
create index turns_unsent on public.turns (user_id, finished_at) where status = 'unsent';
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

alter table public.sessions enable row level security;
alter table public.turns enable row level security;
alter table public.messages enable row level security;
revoke all on public.sessions, public.turns, public.messages from public, anon, authenticated;
grant select, insert, update, delete on public.sessions, public.turns, public.messages to service_role;
grant select (
  id, user_id, number, client_message_id, status, attempt, cancel_requested_at, error, usage, cost, cost_status,
  created_at, started_at, finished_at, reason
) on public.turns to authenticated;
grant select on public.messages to authenticated;
create policy turns_own on public.turns
  for select to authenticated using ((select auth.uid()) = user_id);
create policy messages_own on public.messages
  for select to authenticated using ((select auth.uid()) = user_id);

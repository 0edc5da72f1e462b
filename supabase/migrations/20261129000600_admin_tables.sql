-- What admins do to accounts, and the plan of each account. Rows of actions are never changed: a trigger refuses it to
-- every role, and no role may. They have ids, no names or addresses, and outlive the users they are about.
create table public.admin_actions (
  id bigint primary key generated always as identity,
  at timestamptz not null default clock_timestamp(),
  actor_id uuid, -- the admin; null: somebody with the server's keys, by a command
  source text not null check (char_length(source) <= 200), -- the admin's address, or `user@host` of the command
  action text not null check (char_length(action) <= 64),
  user_id uuid, -- the user it is about; null: none, or a new one, whom the outcome names
  details jsonb not null default '{}'
);

create index admin_actions_user on public.admin_actions (user_id, id);

-- How an action ended. One without a row was interrupted, or is under way.
create table public.admin_outcomes (
  action_id bigint primary key references public.admin_actions (id),
  at timestamptz not null default clock_timestamp(),
  outcome text not null check (outcome in ('done', 'failed')),
  user_id uuid,
  reason text check (char_length(reason) <= 500)
);

alter table public.admin_actions enable row level security;
alter table public.admin_outcomes enable row level security;
revoke all on public.admin_actions, public.admin_outcomes from public, anon, authenticated, service_role;
revoke all on sequence public.admin_actions_id_seq from public, anon, authenticated, service_role;
grant select on public.admin_actions, public.admin_outcomes to service_role; -- without any right, Supabase Lite does not start
grant select on sequence public.admin_actions_id_seq to service_role;

alter table public.user_profiles add column plan text check (char_length(plan) <= 64); -- null: not given one yet, or changed by hand
create index user_profiles_newest on public.user_profiles (created_at desc, id desc);
create index ledger_all_days on public.ledger (date, model);
create index usage_metrics_days on public.usage_metrics (date);

-- When a user's log was last read for calls of the agent's housekeeping, so that each part of it is read again once. The
-- releases before read the last minute again at each search.
alter table public.billing_accounts
  add column housekeeping_read_at timestamptz not null default now() - interval '1 minute';

-- Where the event log of a session stopped when the owner with `log_fence` released it.
alter table public.sessions
  add column log_epoch text,
  add column log_head bigint,
  add column log_fence bigint;

-- What was spent by users who were deleted, per day and model and without their names: the sums of all users stay right.
create table public.deleted_usage (
  date date not null,
  model text not null,
  model_calls bigint not null default 0,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  cached_tokens bigint not null default 0,
  reasoning_tokens bigint not null default 0,
  cost numeric not null default 0, -- US dollars, unrounded
  primary key (date, model)
);

create index user_profiles_deleting on public.user_profiles (updated_at) where agent_status = 'deleting';

alter table public.deleted_usage enable row level security;
revoke all on public.deleted_usage from public, anon, authenticated;
grant select, insert, update, delete on public.deleted_usage to service_role;

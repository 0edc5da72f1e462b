-- Who may read what: users their own rows, without keys or coordination columns; nobody but the service role writes.

alter table public.user_profiles enable row level security;
alter table public.turns enable row level security;
alter table public.messages enable row level security;
alter table public.usage_metrics enable row level security;
alter table public.sessions enable row level security;
alter table public.tickets enable row level security;

revoke all on
  public.user_profiles, public.turns, public.messages, public.usage_metrics, public.sessions, public.tickets,
  public.usage_totals
from public, anon, authenticated;

grant select, insert, update, delete on
  public.user_profiles, public.turns, public.messages, public.usage_metrics, public.sessions, public.tickets
to service_role;
grant select on public.usage_totals to service_role;

grant select (id, email, name, agent_status, status_reason, letta_agent_id, created_at, updated_at)
  on public.user_profiles to authenticated;
grant select (
  id, user_id, number, client_message_id, status, attempt, cancel_requested_at, error, usage, cost, cost_status,
  created_at, started_at, finished_at
) on public.turns to authenticated;
grant select on public.messages, public.usage_metrics, public.usage_totals to authenticated;

create policy user_profiles_own on public.user_profiles
  for select to authenticated using ((select auth.uid()) = id);
create policy turns_own on public.turns
  for select to authenticated using ((select auth.uid()) = user_id);
create policy messages_own on public.messages
  for select to authenticated using ((select auth.uid()) = user_id);
create policy usage_metrics_own on public.usage_metrics
  for select to authenticated using ((select auth.uid()) = user_id);

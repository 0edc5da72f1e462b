-- The device of each sign-in, as the server saw it: Auth itself sees the server. Deleted with Auth's session.
create table public.sign_in_devices (
  session_id uuid primary key references auth.sessions (id) on delete cascade,
  user_agent text check (char_length(user_agent) <= 512), -- null: the client named none
  address text check (char_length(address) <= 45) -- null: unknown
);

alter table public.sign_in_devices enable row level security;
revoke all on public.sign_in_devices from public, anon, authenticated;
grant select, insert, update, delete on public.sign_in_devices to service_role;

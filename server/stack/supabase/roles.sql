-- The roles of a Supabase project, and a login for Supabase Lite that owns `auth` and `supabase_migrations` only. Lite runs
-- GRANT ALL ON ALL TABLES TO anon, authenticated, service_role on its first request; since it owns nothing in `public`, that
-- does not undo the migrations' revokes. Run as superuser on every start, before the migrations.
do $$
begin
  if not exists (select from pg_roles where rolname = 'anon') then
    create role anon nologin noinherit;
  end if;
  if not exists (select from pg_roles where rolname = 'authenticated') then
    create role authenticated nologin noinherit;
  end if;
  if not exists (select from pg_roles where rolname = 'service_role') then
    create role service_role nologin noinherit bypassrls;
  end if;
end $$;

grant anon, authenticated, service_role to supabase_lite;
create schema if not exists auth authorization supabase_lite;
create schema if not exists supabase_migrations authorization supabase_lite;
grant create on database postgres to supabase_lite; -- it runs CREATE SCHEMA IF NOT EXISTS auth
grant usage on schema auth to anon, authenticated, service_role;
grant usage on schema public to anon, authenticated, service_role;

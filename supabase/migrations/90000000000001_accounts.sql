-- Accounts: profiles, and whether an account may be served.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- The user's name from the metadata that supabase-js (`options.data`) or another provider stored in Auth: on one
-- line, at most 100 characters; null if there is none. Users write it themselves, so it may contain anything.
create or replace function private.name_at_auth(p_user_id uuid) returns text
language plpgsql stable set search_path = '' as $$
declare
  v_data jsonb;
  v_field text;
  v_name text;
begin
  select u.raw_user_meta_data into v_data from auth.users u where u.id = p_user_id;
  if jsonb_typeof(v_data) = 'string' then -- Supabase Lite stores the object as its text
    v_data := (v_data #>> '{}')::jsonb;
  end if;
  foreach v_field in array array['name', 'full_name', 'display_name'] loop
    if jsonb_typeof(v_data -> v_field) = 'string' then
      v_name := btrim(regexp_replace(v_data ->> v_field, '[[:space:][:cntrl:]]+', ' ', 'g'));
      v_name := btrim(left(v_name, 100));
      if v_name <> '' then
        return v_name;
      end if;
    end if;
  end loop;
  return null;
exception when invalid_text_representation then
  return null;
end
$$;

-- Lock the user's profile. Creates a missing one, with the name from the sign-up. Null id: Auth does not know the user.
create or replace function private.lock_profile(p_user_id uuid, p_email text default null, p_name text default null)
returns public.user_profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.user_profiles;
begin
  select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  if not found then
    insert into public.user_profiles (id, email, name, agent_status)
      select u.id, coalesce(nullif(u.email, ''), p_email), coalesce(p_name, private.name_at_auth(u.id)), 'provisioning'
      from auth.users u where u.id = p_user_id
      on conflict (id) do nothing;
    select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  end if;
  return v_profile;
end
$$;

-- Lock the profile of a user who wants a turn. Returns why that is refused, null if it is not.
create or replace function private.refuse_account(p_user_id uuid) returns text
language plpgsql set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id);
begin
  return case
    when v_profile.id is null then 'no_account'
    when v_profile.agent_status in ('blocked', 'deleting') then 'account_blocked'
  end;
end
$$;

-- The metadata that only the project writes, as an object; users cannot change it. Supabase Lite stores its text.
create or replace function private.app_metadata(p_user_id uuid) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_data jsonb;
begin
  select to_jsonb(u) -> 'raw_app_meta_data' into v_data from auth.users u where u.id = p_user_id;
  if jsonb_typeof(v_data) = 'string' then
    v_data := (v_data #>> '{}')::jsonb;
  end if;
  return case when jsonb_typeof(v_data) = 'object' then v_data else '{}' end;
exception when invalid_text_representation then
  return '{}';
end
$$;

create or replace function private.is_admin(p_user_id uuid) returns boolean
language sql stable set search_path = '' as $$
  select coalesce(private.app_metadata(p_user_id) ->> 'role' = 'admin', false)
$$;

-- A profile as the adapter reads it.
create or replace function private.account_json(p_profile public.user_profiles) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_profile) - array['litellm_key_hash', 'provisioning_owner', 'provisioning_expires_at']
    || jsonb_build_object('is_admin', private.is_admin(p_profile.id))
$$;

-- Create the profile or bring its e-mail address up to date. The address is Auth's: that of a token may be older. A name
-- that was set stays: it is changed in the profile, not at Auth.
create or replace function public.ensure_profile(p_user_id uuid, p_email text, p_name text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id, p_email, p_name);
  v_name text := coalesce(v_profile.name, p_name, private.name_at_auth(p_user_id));
  v_email text := coalesce((select nullif(u.email, '') from auth.users u where u.id = p_user_id), p_email);
begin
  if v_profile.id is null then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  if v_profile.email is distinct from v_email or v_profile.name is distinct from v_name then
    update public.user_profiles set email = v_email, name = v_name, updated_at = clock_timestamp()
      where id = p_user_id returning * into v_profile;
  end if;
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

create or replace function public.get_profile(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select private.account_json(p) from public.user_profiles p where p.id = p_user_id
$$;

create or replace function public.rename_profile(p_user_id uuid, p_name text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles;
begin
  update public.user_profiles set name = p_name, updated_at = clock_timestamp()
    where id = p_user_id returning * into v_profile;
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  end if;
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

-- The users among these that may not be served: blocked, being deleted, or without a profile.
create or replace function public.closed_accounts(p_user_ids text[]) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(asked.id), '[]')
  from unnest(p_user_ids::uuid[]) asked (id)
  left join public.user_profiles p on p.id = asked.id
  where p.id is null or p.agent_status in ('blocked', 'deleting')
$$;

-- The user's own profile, without the columns that users may not read. The reader's policies apply.
create or replace view public.profiles with (security_invoker = true) as
  select id, email, name, agent_status, status_reason, letta_agent_id as agent_id, created_at, updated_at
  from public.user_profiles;

revoke all on public.profiles from public, anon, authenticated;
grant select on public.profiles to authenticated, service_role;

revoke all on function
  public.ensure_profile(uuid, text, text), public.get_profile(uuid), public.rename_profile(uuid, text),
  public.closed_accounts(text[])
from public, anon, authenticated;
grant execute on function
  public.ensure_profile(uuid, text, text), public.get_profile(uuid), public.rename_profile(uuid, text),
  public.closed_accounts(text[])
to service_role;

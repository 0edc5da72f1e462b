-- Names: those that sign-ups leave with Auth reach the profile, and which name the user's agent was told is stored, so that
-- another one is told before the next turn. And one's own profile as a view that may be read whole.

alter table public.user_profiles add column told_name text;

-- What the user is called, by what supabase-js (`options.data`) or another provider left with Auth. On one line, as long as
-- a name may be; null where there is none. Users write it themselves: anything may be in there.
create function private.name_at_auth(p_user_id uuid) returns text
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

create or replace function private.lock_profile(p_user_id uuid, p_email text default null, p_name text default null)
returns public.user_profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.user_profiles;
begin
  select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  if not found then
    insert into public.user_profiles (id, email, name, agent_status)
      select u.id, coalesce(p_email, u.email), coalesce(p_name, private.name_at_auth(u.id)), 'provisioning'
      from auth.users u where u.id = p_user_id
      on conflict (id) do nothing;
    select * into v_profile from public.user_profiles where id = p_user_id for no key update;
  end if;
  return v_profile;
end
$$;

-- A name that was set stays: it is changed in the profile, not at Auth.
create or replace function public.ensure_profile(p_user_id uuid, p_email text, p_name text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id, p_email, p_name);
  v_name text := coalesce(v_profile.name, p_name, private.name_at_auth(p_user_id));
begin
  if v_profile.id is null then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  if v_profile.email is distinct from p_email or v_profile.name is distinct from v_name then
    update public.user_profiles set email = p_email, name = v_name, updated_at = clock_timestamp()
      where id = p_user_id returning * into v_profile;
  end if;
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

create or replace function public.record_provisioning(p_user_id uuid, p_fence bigint, p_patch text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_patch jsonb := p_patch::jsonb;
  v_profile public.user_profiles;
begin
  update public.user_profiles set
    agent_status = case
      when agent_status in ('blocked', 'deleting') then agent_status
      else coalesce(v_patch ->> 'agent_status', agent_status)
    end,
    status_reason = nullif(coalesce(v_patch ->> 'status_reason', status_reason), ''),
    litellm_key = coalesce(v_patch ->> 'litellm_key', litellm_key),
    litellm_key_hash = coalesce(v_patch ->> 'litellm_key_hash', litellm_key_hash),
    customer_ready = coalesce((v_patch ->> 'customer_ready')::boolean, customer_ready),
    key_ready = coalesce((v_patch ->> 'key_ready')::boolean, key_ready),
    letta_organization_id = coalesce(v_patch ->> 'letta_organization_id', letta_organization_id),
    letta_member_id = coalesce(v_patch ->> 'letta_member_id', letta_member_id),
    tools_ready = coalesce((v_patch ->> 'tools_ready')::boolean, tools_ready),
    letta_provider_id = coalesce(v_patch ->> 'letta_provider_id', letta_provider_id),
    letta_agent_id = coalesce(v_patch ->> 'letta_agent_id', letta_agent_id),
    letta_conversation_id = coalesce(v_patch ->> 'letta_conversation_id', letta_conversation_id),
    told_name = coalesce(v_patch ->> 'told_name', told_name),
    config_hash = coalesce(v_patch ->> 'config_hash', config_hash),
    intent = nullif(coalesce(v_patch ->> 'intent', intent), ''),
    provisioning_expires_at = greatest(provisioning_expires_at, clock_timestamp() + interval '15 seconds'),
    updated_at = clock_timestamp()
  where id = p_user_id and provisioning_fence = p_fence and provisioning_owner is not null
  returning * into v_profile;
  if not found then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

-- One's own profile, whole: what users may not read of `user_profiles` is not in it. The reader's own policies apply.
create view public.profiles with (security_invoker = true) as
  select id, email, name, agent_status, status_reason, letta_agent_id as agent_id, created_at, updated_at
  from public.user_profiles;

revoke all on public.profiles from public, anon, authenticated;
grant select on public.profiles to authenticated, service_role;

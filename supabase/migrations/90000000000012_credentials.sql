-- Credentials: API keys, sign-ins as Auth has them, which of both have ended, and reads for a user without a token.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

create or replace function private.api_key_json(p_key public.api_keys) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_key) - array['user_id', 'secret_hash']
$$;

-- Store a new key, unless the user has `p_most` already. Expired ones are deleted and do not count.
create or replace function public.create_api_key(
  p_user_id uuid, p_name text, p_prefix text, p_secret_hash text, p_scopes text[], p_expires_at timestamptz,
  p_most integer
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_refusal text := private.refuse_account(p_user_id);
  v_key public.api_keys;
begin
  if v_refusal is not null then
    return jsonb_build_object('outcome', v_refusal);
  end if;
  delete from public.api_keys where user_id = p_user_id and expires_at <= clock_timestamp();
  if (select count(*) from public.api_keys where user_id = p_user_id) >= p_most then
    return '{"outcome": "too_many_keys"}';
  end if;
  insert into public.api_keys (user_id, name, prefix, secret_hash, scopes, expires_at)
    values (p_user_id, p_name, p_prefix, p_secret_hash, p_scopes, p_expires_at) returning * into v_key;
  return jsonb_build_object('outcome', 'ok', 'key', private.api_key_json(v_key));
end
$$;

create or replace function public.revoke_api_key(p_user_id uuid, p_key_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  delete from public.api_keys where user_id = p_user_id and id = p_key_id;
  return to_jsonb(found);
end
$$;

-- The key with this prefix, with what verifies it; null if there is none, or if it may not be used any more.
create or replace function public.find_api_key(p_prefix text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select to_jsonb(k) || jsonb_build_object(
    'email', p.email, 'is_anonymous', coalesce((to_jsonb(u) ->> 'is_anonymous')::boolean, false)
  )
  from public.api_keys k
  join public.user_profiles p on p.id = k.user_id
  join auth.users u on u.id = k.user_id
  where k.prefix = p_prefix
    and coalesce(k.expires_at > clock_timestamp(), true)
    and coalesce((to_jsonb(u) ->> 'banned_until')::timestamptz <= clock_timestamp(), true)
    and to_jsonb(u) ->> 'deleted_at' is null
$$;

create or replace function public.note_api_key_use(p_key_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  update public.api_keys set last_used_at = clock_timestamp() where id = p_key_id;
  return to_jsonb(found);
end
$$;

-- Which of these credentials have ended, by their position from 0: `{user_id, session_id?, key_id?}` each. A user was
-- deleted or banned; a sign-in was signed out or expired; a key was revoked or expired. Columns that this version of
-- Auth does not have are ignored.
create or replace function public.ended_credentials(p_credentials text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(asked.position), '[]')
  from (
    select e.ordinality - 1, (e.value ->> 'user_id')::uuid, (e.value ->> 'session_id')::uuid,
      (e.value ->> 'key_id')::uuid
    from jsonb_array_elements(p_credentials::jsonb) with ordinality e
  ) asked (position, user_id, session_id, key_id)
  left join auth.users u on u.id = asked.user_id
  left join auth.sessions s on s.id = asked.session_id and s.user_id = asked.user_id
  left join public.api_keys k on k.id = asked.key_id and k.user_id = asked.user_id
  where u.id is null
    or to_jsonb(u) ->> 'deleted_at' is not null
    or (to_jsonb(u) ->> 'banned_until')::timestamptz > clock_timestamp()
    or (asked.session_id is not null and s.id is null)
    or (to_jsonb(s) ->> 'not_after')::timestamptz <= clock_timestamp()
    or (asked.key_id is not null and k.id is null)
    or k.expires_at <= clock_timestamp()
$$;

-- The user's valid sign-ins, the newest first, with the device that the server saw, else the one that Auth saw. Columns
-- that this version of Auth does not have are ignored; it writes `refreshed_at` in UTC without saying so.
create or replace function public.list_sign_ins(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(
    jsonb_build_object(
      'id', f.id,
      'created_at', f.created_at,
      'last_seen_at', greatest((f.session ->> 'refreshed_at')::timestamp at time zone 'utc', f.created_at),
      'user_agent', case when d.session_id is null then f.session ->> 'user_agent' else d.user_agent end,
      'address', case when d.session_id is null then f.session ->> 'ip' else d.address end
    ) order by f.created_at desc, f.id
  ), '[]')
  from (
    select s.id, (to_jsonb(s) ->> 'created_at')::timestamptz as created_at, to_jsonb(s) as session
    from auth.sessions s where s.user_id = p_user_id
  ) f
  left join public.sign_in_devices d on d.session_id = f.id
  where coalesce((f.session ->> 'not_after')::timestamptz > clock_timestamp(), true)
$$;

-- End one sign-in: its refresh tokens are deleted with it.
create or replace function public.end_sign_in(p_user_id uuid, p_session_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  delete from auth.sessions where user_id = p_user_id and id = p_session_id;
  return to_jsonb(found);
end
$$;

-- Read rows of one table as the user does with a token: under the role `authenticated`, with the user's claims, so the
-- same grants and policies decide. Not `security definer`, where PostgreSQL refuses to set a role; nor is the role an
-- attribute of the function, which could not be replaced then. `p_query`: {table, columns: ["name",
-- "alias:name::text", …], where: [[column, operator, value], …], order: [[column, is_descending], …], limit?, offset?},
-- with the operators of PostgREST; the value of `in` is an array's text, as {1,2}.
create or replace function public.read_as_user(p_user_id uuid, p_query text) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_query jsonb := p_query::jsonb;
  v_columns text;
  v_where text;
  v_order text;
  v_rows jsonb;
  v_role text := current_setting('role');
begin
  perform
    set_config('role', 'authenticated', true),
    set_config('request.jwt.claims', jsonb_build_object('sub', p_user_id, 'role', 'authenticated')::text, true),
    set_config('request.jwt.claim.sub', p_user_id::text, true),
    set_config('request.jwt.claim.role', 'authenticated', true);
  select string_agg(format('%I%s as %I', c.parts[2], coalesce(c.parts[3], ''), coalesce(c.parts[1], c.parts[2])), ', ')
    into v_columns
    from (
      select regexp_match(e.value, '^(?:(\w+):)?(\w+)(::text)?$') from jsonb_array_elements_text(v_query -> 'columns') e
    ) c (parts);
  select coalesce(string_agg(format('%I %s (%L)', e.value ->> 0, case e.value ->> 1
      when 'eq' then '=' when 'lt' then '<' when 'lte' then '<=' when 'gt' then '>' when 'gte' then '>='
      when 'in' then '= any'
    end, e.value ->> 2), ' and '), 'true')
    into v_where from jsonb_array_elements(v_query -> 'where') e;
  select 'order by ' || string_agg(
      format('%I', e.value ->> 0) || case when (e.value ->> 1)::boolean then ' desc' else '' end, ', '
      order by e.ordinality
    )
    into v_order from jsonb_array_elements(v_query -> 'order') with ordinality e;
  execute format(
    'select coalesce(jsonb_agg(to_jsonb(r)), ''[]'') from (select %s from public.%I where %s %s limit %L offset %L) r',
    v_columns, v_query ->> 'table', v_where, coalesce(v_order, ''), v_query ->> 'limit', v_query ->> 'offset'
  ) into v_rows;
  perform set_config('role', v_role, true); -- an error ends the transaction, and with it the role
  return v_rows;
end
$$;

revoke all on function
  public.create_api_key(uuid, text, text, text, text[], timestamptz, integer),
  public.revoke_api_key(uuid, uuid), public.find_api_key(text), public.note_api_key_use(uuid),
  public.ended_credentials(text), public.list_sign_ins(uuid), public.end_sign_in(uuid, uuid),
  public.read_as_user(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.create_api_key(uuid, text, text, text, text[], timestamptz, integer),
  public.revoke_api_key(uuid, uuid), public.find_api_key(text), public.note_api_key_use(uuid),
  public.ended_credentials(text), public.list_sign_ins(uuid), public.end_sign_in(uuid, uuid),
  public.read_as_user(uuid, text)
to service_role;

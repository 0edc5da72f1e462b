-- Whether a sign-in still stands, for what outlives the access token that was shown for it. Service role only.

-- A sign-out deletes Auth's session. What Auth of another age has no column for does not count.
create function public.is_signed_in(p_user_id uuid, p_session_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select to_jsonb(exists (
    select from auth.sessions s join auth.users u on u.id = s.user_id
    where s.id = p_session_id and s.user_id = p_user_id
      and coalesce((to_jsonb(s) ->> 'not_after')::timestamptz > now(), true)
      and coalesce((to_jsonb(u) ->> 'banned_until')::timestamptz <= now(), true)
  ))
$$;

revoke all on function public.is_signed_in(uuid, uuid) from public, anon, authenticated;
grant execute on function public.is_signed_in(uuid, uuid) to service_role;

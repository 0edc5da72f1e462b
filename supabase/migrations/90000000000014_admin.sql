-- Admins: what they read of users, how they block them, who is an admin, and the record of all of it.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

create or replace function private.refuse_change() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  raise exception 'rows of % are never changed', tg_table_name using errcode = '42501';
end
$$;

create or replace trigger admin_actions_kept before update or delete or truncate on public.admin_actions
  for each statement execute function private.refuse_change();
create or replace trigger admin_outcomes_kept before update or delete or truncate on public.admin_outcomes
  for each statement execute function private.refuse_change();

-- Record an action that begins. Returns its id.
create or replace function public.begin_admin_action(
  p_actor_id uuid, p_source text, p_action text, p_user_id uuid, p_details text
) returns jsonb
language sql security definer set search_path = '' as $$
  insert into public.admin_actions (actor_id, source, action, user_id, details)
    values (p_actor_id, left(p_source, 200), p_action, p_user_id, p_details::jsonb)
  returning to_jsonb(id)
$$;

-- Record how it ended. Its first outcome counts.
create or replace function public.end_admin_action(p_id bigint, p_outcome text, p_user_id uuid, p_reason text) returns jsonb
language sql security definer set search_path = '' as $$
  insert into public.admin_outcomes (action_id, outcome, user_id, reason)
    values (p_id, p_outcome, p_user_id, left(p_reason, 500))
    on conflict (action_id) do nothing;
  select '{"outcome": "ok"}'::jsonb
$$;

-- Record an action that is done in this transaction.
create or replace function private.record_action(
  p_actor_id uuid, p_source text, p_action text, p_user_id uuid, p_details jsonb
) returns void
language sql set search_path = '' as $$
  with action as (
    insert into public.admin_actions (actor_id, source, action, user_id, details)
      values (p_actor_id, left(p_source, 200), p_action, p_user_id, p_details)
    returning id
  )
  insert into public.admin_outcomes (action_id, outcome) select id, 'done' from action
$$;

-- Whether the user is the only admin who can sign in. Holds a lock until the transaction ends, so that of two admins who
-- remove each other at once one stays: take it before any profile's lock.
create or replace function private.is_last_admin(p_user_id uuid) returns boolean
language plpgsql set search_path = '' as $$
begin
  perform pg_advisory_xact_lock(hashtext('public.admins'));
  return private.is_admin(p_user_id) and not exists (
    select from auth.users u left join public.user_profiles p on p.id = u.id
    where u.id <> p_user_id
      and to_jsonb(u) ->> 'raw_app_meta_data' like '%admin%' and private.is_admin(u.id)
      and coalesce(p.agent_status not in ('blocked', 'deleting'), true)
      and coalesce((to_jsonb(u) ->> 'banned_until')::timestamptz <= now(), true)
      and to_jsonb(u) ->> 'deleted_at' is null
  );
end
$$;

-- Block the account: cancel its turns; nothing of it is served any more.
create or replace function public.block_account(p_user_id uuid, p_reason text, p_actor_id uuid, p_source text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_is_last boolean := private.is_last_admin(p_user_id);
  v_profile public.user_profiles := private.lock_profile(p_user_id);
begin
  if v_profile.id is null or v_profile.agent_status = 'deleting' then
    return jsonb_build_object('outcome', 'not_found');
  elsif v_is_last then
    return jsonb_build_object('outcome', 'last_admin');
  end if;
  update public.user_profiles
    set agent_status = 'blocked', status_reason = p_reason, updated_at = clock_timestamp()
    where id = p_user_id returning * into v_profile;
  perform private.cancel_turns(p_user_id, array(
    select t.id from public.turns t where t.user_id = p_user_id and t.status in ('queued', 'running')
  ));
  perform private.record_action(p_actor_id, p_source, 'block', p_user_id, jsonb_build_object('reason', p_reason));
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

-- Open a blocked account again. An agent that was not ready is provisioned.
create or replace function public.unblock_account(p_user_id uuid, p_actor_id uuid, p_source text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id);
begin
  if v_profile.id is null or v_profile.agent_status = 'deleting' then
    return jsonb_build_object('outcome', 'not_found');
  end if;
  update public.user_profiles set
    agent_status = case
      when agent_status <> 'blocked' then agent_status
      when letta_conversation_id is not null and config_hash is not null then 'active'
      else 'provisioning'
    end,
    status_reason = case when agent_status = 'blocked' then null else status_reason end,
    updated_at = clock_timestamp()
  where id = p_user_id returning * into v_profile;
  perform private.record_action(p_actor_id, p_source, 'unblock', p_user_id, '{}');
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

-- Make the user an admin, or no longer one; an admin has a profile. The metadata keeps its form: Supabase Lite stores an
-- object's text.
create or replace function public.set_admin(p_user_id uuid, p_is_admin boolean, p_actor_id uuid, p_source text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_data jsonb;
begin
  if private.is_last_admin(p_user_id) and not p_is_admin then
    return jsonb_build_object('outcome', 'last_admin');
  end if;
  v_data := private.app_metadata(p_user_id);
  v_data := case
    when p_is_admin then v_data || '{"role": "admin"}'
    when v_data ->> 'role' = 'admin' then v_data - 'role'
    else v_data
  end;
  update auth.users set
    raw_app_meta_data = case when jsonb_typeof(raw_app_meta_data) = 'string' then to_jsonb(v_data::text) else v_data end
    where id = p_user_id;
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  end if;
  perform private.lock_profile(p_user_id);
  perform private.record_action(
    p_actor_id, p_source, case when p_is_admin then 'make_admin' else 'remove_admin' end, p_user_id, '{}'
  );
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- Mark the e-mail address of a user whom an operator created as confirmed.
create or replace function public.confirm_user(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  update auth.users set email_confirmed_at = coalesce(email_confirmed_at, now()) where id = p_user_id;
  return jsonb_build_object('outcome', case when found then 'ok' else 'not_found' end);
end
$$;

-- Store the name of the user's plan; null: none of the named ones.
create or replace function public.label_plan(p_user_id uuid, p_plan text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles;
begin
  update public.user_profiles set plan = p_plan, updated_at = clock_timestamp()
    where id = p_user_id returning * into v_profile;
  if not found then
    return jsonb_build_object('outcome', 'not_found');
  end if;
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

-- What the account has spent since it exists. Money as text, so that no digit is lost in JSON.
create or replace function private.spent_in_all(p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'messages', coalesce(sum(m.total_messages), 0), 'tokens', coalesce(sum(m.total_tokens), 0),
    'cost', coalesce(sum(m.exact_cost), 0)::text
  ) from public.usage_metrics m where m.user_id = p_user_id
$$;

-- Accounts with what they have spent, the newest first: those with this id, or this text in their address; with this
-- status; older than the account `p_after`.
create or replace function public.search_accounts(
  p_query text, p_status text, p_admins boolean, p_after uuid, p_limit integer
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'account', private.account_json(found.p),
    'standing', (select to_jsonb(s) from public.budget_standings s where s.user_id = (found.p).id),
    'total', private.spent_in_all((found.p).id)
  ) order by (found.p).created_at desc, (found.p).id desc), '[]')
  from (
    select p from public.user_profiles p
    where (p_query is null or p.id::text = lower(p_query) or strpos(lower(p.email), lower(p_query)) > 0)
      and (p_status is null or p.agent_status = p_status)
      and (not p_admins or private.is_admin(p.id))
      and (p_after is null or (p.created_at, p.id) < (
        select a.created_at, a.id from public.user_profiles a where a.id = p_after
      ))
    order by p.created_at desc, p.id desc
    limit p_limit
  ) found
$$;

-- One account with what it has spent, its open turns, and the newest errors of its turns. No text of any message.
create or replace function public.account_details(p_user_id uuid, p_errors integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'account', private.account_json(p),
    'standing', (select to_jsonb(s) from public.budget_standings s where s.user_id = p.id),
    'total', private.spent_in_all(p.id),
    'open_turns', (
      select count(*) from public.turns t where t.user_id = p.id and t.status in ('queued', 'running')
    ),
    'last_message_at', (
      select t.created_at from public.turns t where t.user_id = p.id order by t.number desc limit 1
    ),
    'errors', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'turn_id', e.id, 'at', e.finished_at, 'code', e.error ->> 'code', 'message', e.error ->> 'message'
      ) order by e.finished_at desc), '[]')
      from (
        select t.id, t.finished_at, t.error from public.turns t
        where t.user_id = p.id and t.error is not null and t.finished_at is not null
        order by t.finished_at desc limit p_errors
      ) e
    )
  )
  from public.user_profiles p where p.id = p_user_id
$$;

-- The usage of all users together by UTC day, and by day and model; deleted users are in the sums, except of users and
-- messages. Money as text, so that no digit is lost in JSON.
create or replace function public.usage_of_all(p_first date, p_last date) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'days', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'date', d.date, 'users', d.users, 'messages', d.messages, 'tokens', d.tokens, 'cost', d.cost::text
      ) order by d.date), '[]')
      from (
        select m.date, count(m.user_id) as users, sum(m.total_messages) as messages, sum(m.total_tokens) as tokens,
          sum(m.exact_cost) as cost
        from (
          select date, user_id, total_messages, total_tokens, exact_cost from public.usage_metrics
          union all
          select date, null, 0, prompt_tokens + completion_tokens, cost from public.deleted_usage
        ) m
        where m.date between p_first and p_last group by m.date
      ) d
    ),
    'models', (
      select coalesce(jsonb_agg(to_jsonb(u) order by u.date, u.model), '[]')
      from (
        select l.date, l.model, sum(l.model_calls) as model_calls, sum(l.prompt_tokens) as prompt_tokens,
          sum(l.completion_tokens) as completion_tokens, sum(l.cached_tokens) as cached_tokens,
          sum(l.reasoning_tokens) as reasoning_tokens, sum(l.total_tokens) as total_tokens,
          coalesce(sum(l.cost), 0)::text as cost,
          coalesce(sum(l.cost) filter (where l.is_background), 0)::text as background_cost
        from (
          select date, model, model_calls, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
            total_tokens, cost, turn_id is null as is_background
          from public.ledger where counted
          union all
          select date, model, model_calls, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
            prompt_tokens + completion_tokens, cost, false
          from public.deleted_usage
        ) l
        where l.date between p_first and p_last group by l.date, l.model
      ) u
    )
  )
$$;

-- Actions with their outcomes, the newest first; `p_user_id`: about this user, or by this admin. The record names users
-- by id; the addresses are those of the accounts that exist now.
create or replace function public.admin_actions_page(p_user_id uuid, p_before bigint, p_limit integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', a.id, 'at', a.at, 'actor_id', a.actor_id, 'actor_email', actor.email, 'source', a.source, 'action', a.action,
    'user_id', a.on_user_id, 'user_email', subject.email, 'details', a.details, 'outcome', a.outcome, 'reason', a.reason,
    'ended_at', a.ended_at
  ) order by a.id desc), '[]')
  from (
    select a.*, o.outcome, o.reason, o.at as ended_at, coalesce(a.user_id, o.user_id) as on_user_id
    from public.admin_actions a left join public.admin_outcomes o on o.action_id = a.id
    where (p_user_id is null or p_user_id in (a.user_id, a.actor_id, o.user_id))
      and (p_before is null or a.id < p_before)
    order by a.id desc
    limit p_limit
  ) a
  left join public.user_profiles actor on actor.id = a.actor_id
  left join public.user_profiles subject on subject.id = a.on_user_id
$$;

revoke all on function
  public.begin_admin_action(uuid, text, text, uuid, text), public.end_admin_action(bigint, text, uuid, text),
  public.block_account(uuid, text, uuid, text), public.unblock_account(uuid, uuid, text),
  public.set_admin(uuid, boolean, uuid, text), public.confirm_user(uuid), public.label_plan(uuid, text),
  public.search_accounts(text, text, boolean, uuid, integer), public.account_details(uuid, integer),
  public.usage_of_all(date, date), public.admin_actions_page(uuid, bigint, integer)
from public, anon, authenticated;
grant execute on function
  public.begin_admin_action(uuid, text, text, uuid, text), public.end_admin_action(bigint, text, uuid, text),
  public.block_account(uuid, text, uuid, text), public.unblock_account(uuid, uuid, text),
  public.set_admin(uuid, boolean, uuid, text), public.confirm_user(uuid), public.label_plan(uuid, text),
  public.search_accounts(text, text, boolean, uuid, integer), public.account_details(uuid, integer),
  public.usage_of_all(date, date), public.admin_actions_page(uuid, bigint, integer)
to service_role;

-- Personal data: deletion of a user, deletion of a user's history alone, and export of all that is stored about a user.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- Mark the account as being deleted: nothing new begins, queued turns are cancelled, the running one is to stop.
-- Outcome `last_admin`: another user has to be one first.
create or replace function public.begin_deletion(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_is_last boolean := private.is_last_admin(p_user_id);
  v_profile public.user_profiles := private.lock_profile(p_user_id);
begin
  if v_profile.id is null then
    return jsonb_build_object('outcome', 'no_account');
  elsif v_is_last and v_profile.agent_status <> 'deleting' then
    return jsonb_build_object('outcome', 'last_admin');
  end if;
  update public.user_profiles set agent_status = 'deleting', status_reason = null, updated_at = clock_timestamp()
    where id = p_user_id and agent_status <> 'deleting';
  perform private.cancel_turns(p_user_id, array(
    select t.id from public.turns t where t.user_id = p_user_id and t.status in ('queued', 'running')
  ));
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- Users who are being deleted and are not claimed, the longest waiting first.
create or replace function public.unfinished_deletions(p_limit integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(id order by updated_at), '[]')
  from (
    select p.id, p.updated_at from public.user_profiles p
    where p.agent_status = 'deleting'
      and (p.provisioning_expires_at is null or p.provisioning_expires_at <= clock_timestamp())
    order by p.updated_at
    limit p_limit
  ) unfinished
$$;

-- Delete the user from Auth, and with that every row of the user. `p_keep_spend`: what was spent is kept without the
-- name. One transaction, so that it is kept once. Outcome `fenced`: the account is not being deleted.
create or replace function public.delete_user(p_user_id uuid, p_keep_spend boolean) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles;
begin
  select * into v_profile from public.user_profiles where id = p_user_id for update;
  if not found then
    return jsonb_build_object('outcome', 'ok');
  elsif v_profile.agent_status <> 'deleting' then
    return jsonb_build_object('outcome', 'fenced');
  end if;
  if p_keep_spend then
    insert into public.deleted_usage as d (
      date, model, model_calls, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost
    )
      select
        l.date, l.model, sum(l.model_calls), sum(l.prompt_tokens), sum(l.completion_tokens), sum(l.cached_tokens),
        sum(l.reasoning_tokens), coalesce(sum(l.cost), 0)
      from public.ledger l where l.user_id = p_user_id and l.counted
      group by l.date, l.model
    on conflict (date, model) do update set
      model_calls = d.model_calls + excluded.model_calls,
      prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
      completion_tokens = d.completion_tokens + excluded.completion_tokens,
      cached_tokens = d.cached_tokens + excluded.cached_tokens,
      reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
      cost = d.cost + excluded.cost;
  end if;
  if to_regclass('auth.flow_state') is not null then -- it refers to users without a foreign key
    execute 'delete from auth.flow_state where user_id = $1' using p_user_id;
  end if;
  delete from auth.users where id = p_user_id;
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- Delete the user's messages and what turns hold of them. Turns stay as figures, with an empty `content_hash`, and are
-- not found any more. The agent goes on in another conversation. Outcome `busy`: a turn waits or runs.
create or replace function public.delete_history(p_user_id uuid, p_conversation_id text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_refusal text := private.refuse_account(p_user_id);
begin
  if v_refusal is not null then
    return jsonb_build_object('outcome', v_refusal);
  end if;
  if exists (select from public.turns t where t.user_id = p_user_id and t.status in ('queued', 'running')) then
    return jsonb_build_object('outcome', 'busy');
  end if;
  delete from public.messages where user_id = p_user_id;
  update public.turns set
    content_hash = '', error = null, reason = null, run_id = null, past_run_ids = '{}', carried_by = coalesce(carried_by, id)
    where user_id = p_user_id and content_hash <> '';
  update public.user_profiles set letta_conversation_id = p_conversation_id, updated_at = clock_timestamp()
    where id = p_user_id;
  return jsonb_build_object('outcome', 'ok');
end
$$;

-- What is stored about a user, part by part: `$1` is the user, `key` the order within the part, `row` the row. Amounts
-- are text, so that no digit is lost in JSON. Left out: the user's key at the model gateway and hashes of keys.
create or replace function private.exported_part(p_part text) returns text
language sql immutable set search_path = '' as $$
  select case p_part
    when 'account' then $part$
      select '' as key, jsonb_build_object(
        'id', u.id, 'email', u.email, 'name', p.name, 'agent_status', p.agent_status, 'agent_id', p.letta_agent_id,
        'conversation_id', p.letta_conversation_id, 'created_at', u.created_at, 'updated_at', p.updated_at,
        'last_sign_in_at', u.last_sign_in_at, 'email_confirmed_at', u.email_confirmed_at,
        'metadata', u.raw_user_meta_data, 'app_metadata', u.raw_app_meta_data
      ) as row
      from auth.users u left join public.user_profiles p on p.id = u.id where u.id = $1
    $part$
    when 'identities' then $part$
      select i.id::text as key, jsonb_build_object(
        'provider', i.provider, 'email', i.email, 'data', i.identity_data, 'created_at', i.created_at,
        'last_sign_in_at', i.last_sign_in_at
      ) as row
      from auth.identities i where i.user_id = $1
    $part$
    when 'sign_ins' then $part$
      select s.id::text as key, jsonb_build_object(
        'id', s.id, 'created_at', s.created_at, 'refreshed_at', s.refreshed_at, 'user_agent', s.user_agent, 'ip', s.ip,
        'device', to_jsonb(d) - 'session_id'
      ) as row
      from auth.sessions s left join public.sign_in_devices d on d.session_id = s.id where s.user_id = $1
    $part$
    when 'addresses' then $part$
      select a.address_hash as key, jsonb_build_object('hash', a.address_hash, 'seen_at', a.seen_at) as row
      from public.known_addresses a where a.user_id = $1
    $part$
    when 'api_keys' then $part$
      select k.id::text as key, to_jsonb(k) - array['user_id', 'secret_hash'] as row
      from public.api_keys k where k.user_id = $1
    $part$
    when 'messages' then $part$
      select lpad(m.position::text, 20, '0') as key,
        to_jsonb(m) - 'user_id' || jsonb_build_object('cost', m.cost::text) as row
      from public.messages m where m.user_id = $1
    $part$
    when 'turns' then $part$
      select lpad(t.number::text, 20, '0') as key,
        to_jsonb(t) - array['user_id', 'content_hash', 'carried_by'] || jsonb_build_object('cost', t.cost::text) as row
      from public.turns t where t.user_id = $1
    $part$
    when 'attempts' then $part$
      select a.started_at::text || a.turn_id || lpad(a.attempt::text, 10, '0') as key, to_jsonb(a) - 'user_id' as row
      from public.attempts a where a.user_id = $1
    $part$
    when 'ledger' then $part$
      select l.started_at::text || l.id as key,
        to_jsonb(l) - 'user_id' || jsonb_build_object('cost', l.cost::text) as row
      from public.ledger l where l.user_id = $1
    $part$
    when 'usage' then $part$
      select u.date::text as key, jsonb_build_object(
        'date', u.date, 'messages', u.total_messages, 'tokens', u.total_tokens, 'cost', u.exact_cost::text
      ) as row
      from public.usage_metrics u where u.user_id = $1
    $part$
    when 'budget' then $part$
      select '' as key, jsonb_build_object(
        'limit', b.budget_limit::text, 'period', b.budget_period, 'started_at', b.budget_started_at,
        'resets_at', b.budget_resets_at, 'read_at', b.budget_read_at
      ) as row
      from public.billing_accounts b where b.user_id = $1
    $part$
  end
$$;

-- A page of one part of what is stored about a user: {rows, next}. `next` is given as `p_after` for the following page,
-- null after the last one.
create or replace function public.export_page(p_user_id uuid, p_part text, p_after text, p_limit integer) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_page jsonb;
begin
  execute format(
    'select jsonb_build_object(
      ''rows'', coalesce(jsonb_agg(page.row order by page.key collate "C"), ''[]''),
      ''next'', case when count(*) = $3 then max(page.key collate "C") end
    ) from (
      select s.key, s.row from (%s) s where $2 is null or s.key collate "C" > $2 order by s.key collate "C" limit $3
    ) page',
    private.exported_part(p_part)
  ) into v_page using p_user_id, p_after, p_limit;
  return v_page;
end
$$;

revoke all on function
  public.begin_deletion(uuid), public.unfinished_deletions(integer), public.delete_user(uuid, boolean),
  public.delete_history(uuid, text), public.export_page(uuid, text, text, integer)
from public, anon, authenticated;
grant execute on function
  public.begin_deletion(uuid), public.unfinished_deletions(integer), public.delete_user(uuid, boolean),
  public.delete_history(uuid, text), public.export_page(uuid, text, text, integer)
to service_role;

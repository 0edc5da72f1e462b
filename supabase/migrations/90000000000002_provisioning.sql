-- Provisioning: the fenced claim under which an account is provisioned, and what each step stores.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- Claim the account unless another owner's claim is valid. Each success returns a new fence, also to the same owner.
create or replace function public.claim_provisioning(p_user_id uuid, p_owner text, p_seconds double precision) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.user_profiles := private.lock_profile(p_user_id);
begin
  if v_profile.id is null then
    return jsonb_build_object('outcome', 'no_account');
  end if;
  if v_profile.provisioning_expires_at > clock_timestamp() and v_profile.provisioning_owner <> p_owner then
    return jsonb_build_object('outcome', 'held');
  end if;
  update public.user_profiles set
    provisioning_owner = p_owner,
    provisioning_fence = provisioning_fence + 1,
    provisioning_expires_at = clock_timestamp() + make_interval(secs => p_seconds)
  where id = p_user_id returning * into v_profile;
  return jsonb_build_object('outcome', 'ok', 'account', private.account_json(v_profile));
end
$$;

-- Store a step's intent or result. The patch is the text of an object of columns; those it leaves out stay, '' clears a
-- text. The claim is valid for another 15 s. Provisioning never reopens an account that is blocked or being deleted.
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
    plan = coalesce(v_patch ->> 'plan', plan),
    customer_email = coalesce(v_patch ->> 'customer_email', customer_email),
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

create or replace function public.release_provisioning(p_user_id uuid, p_fence bigint) returns jsonb
language sql security definer set search_path = '' as $$
  update public.user_profiles set provisioning_owner = null, provisioning_expires_at = null
    where id = p_user_id and provisioning_fence = p_fence;
  select jsonb_build_object('outcome', 'ok')
$$;

-- Users whose provisioning is unfinished, failed, or was done with another configuration, and who are not claimed.
create or replace function public.incomplete_profiles(p_config_hash text, p_limit integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(id order by updated_at), '[]')
  from (
    select p.id, p.updated_at from public.user_profiles p
    where (p.agent_status in ('provisioning', 'failed')
        or (p.agent_status = 'active' and p.config_hash is distinct from p_config_hash))
      and (p.provisioning_expires_at is null or p.provisioning_expires_at <= clock_timestamp())
    order by p.updated_at
    limit p_limit
  ) incomplete
$$;

-- Users whose customer at LiteLLM has another e-mail address than the profile, and who are not claimed.
create or replace function public.outdated_customers(p_limit integer) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(id order by updated_at), '[]')
  from (
    select p.id, p.updated_at from public.user_profiles p
    where p.customer_ready and p.email is distinct from p.customer_email
      and p.agent_status not in ('blocked', 'deleting')
      and (p.provisioning_expires_at is null or p.provisioning_expires_at <= clock_timestamp())
    order by p.updated_at
    limit p_limit
  ) outdated
$$;

revoke all on function
  public.claim_provisioning(uuid, text, double precision), public.record_provisioning(uuid, bigint, text),
  public.release_provisioning(uuid, bigint), public.incomplete_profiles(text, integer),
  public.outdated_customers(integer)
from public, anon, authenticated;
grant execute on function
  public.claim_provisioning(uuid, text, double precision), public.record_provisioning(uuid, bigint, text),
  public.release_provisioning(uuid, bigint), public.incomplete_profiles(text, integer),
  public.outdated_customers(integer)
to service_role;

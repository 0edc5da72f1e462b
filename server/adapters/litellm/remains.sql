-- What LiteLLM's interface leaves of deleted users: its log of their calls, sums per day, and the ids that Letta calls
-- with. For LiteLLM's own database.
-- Gone is a user with a UUID as id who has no row any more: every user of this platform has such an id. Where others use
-- the same LiteLLM, figures of their deleted users go as well if those ids are UUIDs.
create temporary table gone on commit drop as
  select s.api_key, s.end_user from "LiteLLM_SpendLogs" s
  where s."user" ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    and not exists (select from "LiteLLM_UserTable" u where u.user_id = s."user")
  union
  select d.api_key, null from "LiteLLM_DailyUserSpend" d
  where d.user_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    and not exists (select from "LiteLLM_UserTable" u where u.user_id = d.user_id);
delete from gone where api_key = '' or api_key in (select token from "LiteLLM_VerificationToken");
insert into gone
  select d.api_key, d.end_user_id from "LiteLLM_DailyEndUserSpend" d where d.api_key in (select api_key from gone);
-- LiteLLM writes some sums seconds after the others. One that came after a purge is all that is left of its key.
insert into gone
  select late.api_key, null from (
    select api_key from "LiteLLM_DailyEndUserSpend" union select api_key from "LiteLLM_DailyTagSpend"
    union select api_key from "LiteLLM_DailyTeamSpend" union select api_key from "LiteLLM_DailyOrganizationSpend"
    union select api_key from "LiteLLM_DailyAgentSpend") late
  where late.api_key ~ '^[0-9a-f]{64}$'
    and not exists (select from "LiteLLM_VerificationToken" k where k.token = late.api_key)
    and not exists (select from "LiteLLM_DailyUserSpend" d where d.api_key = late.api_key)
    and not exists (select from "LiteLLM_SpendLogs" s where s.api_key = late.api_key);
delete from "LiteLLM_EndUserTable" e where e.user_id in (select end_user from gone where end_user <> '')
  or e.user_id ~ '^user-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    and not exists (select from "LiteLLM_DailyEndUserSpend" d where d.end_user_id = e.user_id)
    and not exists (select from "LiteLLM_SpendLogs" s where s.end_user = e.user_id);
delete from "LiteLLM_SpendLogs" where api_key in (select api_key from gone);
delete from "LiteLLM_DailyUserSpend" where api_key in (select api_key from gone);
delete from "LiteLLM_DailyEndUserSpend" where api_key in (select api_key from gone);
delete from "LiteLLM_DailyTagSpend" where api_key in (select api_key from gone);
delete from "LiteLLM_DailyTeamSpend" where api_key in (select api_key from gone);
delete from "LiteLLM_DailyOrganizationSpend" where api_key in (select api_key from gone);
delete from "LiteLLM_DailyAgentSpend" where api_key in (select api_key from gone);
delete from "LiteLLM_DeletedVerificationToken" d
  where d.key_alias ~ '^user [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'
    and not exists (select from "LiteLLM_UserTable" u where u.user_id = substring(d.key_alias from 6 for 36));

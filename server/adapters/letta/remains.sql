-- What Letta's interface leaves of deleted users and of deleted histories. For Letta's own database.
-- Of a deleted user: the organization, which deletion renames, what refers to it, and figures of each model call.
create temporary table gone on commit drop as select id from organizations where name = 'deleted user';
delete from step_metrics where organization_id in (select id from gone);
delete from steps where organization_id in (select id from gone);
delete from provider_traces where organization_id in (select id from gone);
delete from provider_models where organization_id in (select id from gone);
delete from providers where organization_id in (select id from gone);
delete from tools where organization_id in (select id from gone);
delete from users where organization_id in (select id from gone);
delete from organizations where id in (select id from gone);
-- Of a deleted history: conversations that are marked as deleted, and their messages.
delete from messages where conversation_id in (select id from conversations where is_deleted);
delete from conversations where is_deleted;

-- What the deletion of a user leaves at Supabase Auth: its audit log, which names users without a reference to them.
-- Supabase Lite stores each entry as the text of its JSON.
delete from auth.audit_log_entries a
using (
  select e.id, case json_typeof(e.payload) when 'string' then (e.payload #>> '{}')::json else e.payload end as payload
  from auth.audit_log_entries e
) entry
where entry.id = a.id and entry.payload ->> 'actor_id' is not null
  and not exists (select from auth.users u where u.id::text = entry.payload ->> 'actor_id');

-- The search in a user's history.
-- Repeatable: edit it here; `chat migrate` applies it again after each change (../README.md).

-- The positions of the user's messages in which each word of the query begins a word, newest first; with `p_after` the
-- next ones after it, oldest first. None for a query without letters and digits. Who may read the messages is not
-- decided here: the caller reads them as the user. A user's own query could not use the index, since `@@` is not
-- leakproof: PostgreSQL would evaluate the policy before it, row by row.
--
-- The expression is that of the index `messages_words`. Whatever the query contains, only runs of letters and digits
-- become part of a tsquery. The beginning of the user's id may be another user's, too, so the whole id is compared;
-- but after the index was read, or the planner might read all messages of the user instead. `work_mem` is for the hits
-- of a frequent word: if they do not fit, PostgreSQL forgets which rows of a page they are, and computes the words of
-- all of them again, at 0.2 ms each.
create or replace function public.search_messages(
  p_user_id uuid, p_query text, p_before bigint, p_after bigint, p_limit integer
) returns jsonb
language sql stable security definer set search_path = '' set enable_seqscan = off set work_mem = '64MB' as $$
  with query as (
    select string_agg(quote_literal(w.word) || ':*', ' & ')::tsquery as words
    from (values (p_user_id, p_query)) m (user_id, content), unnest(tsvector_to_array(
      to_tsvector('pg_catalog.simple', regexp_replace(
        ' ' || replace(lower(normalize(left(m.content, 32000))), 'ё', 'е'), '[^[:alnum:]]+',
        ' u' || left(m.user_id::text, 8), 'g'
      ))
    )) w (word)
    where w.word <> 'u' || left(m.user_id::text, 8) -- what follows the last word
  ), found as materialized (
    select m.user_id, m.position from public.messages m
    where to_tsvector('pg_catalog.simple', regexp_replace(
      ' ' || replace(lower(normalize(left(m.content, 32000))), 'ё', 'е'), '[^[:alnum:]]+',
      ' u' || left(m.user_id::text, 8), 'g'
    )) @@ (select words from query)
  )
  select coalesce(jsonb_agg(p.position order by p.rank), '[]')
  from (
    select f.position, case when p_after is null then -f.position else f.position end as rank
    from found f
    where f.user_id = p_user_id
      and f.position < coalesce(p_before, f.position + 1)
      and f.position > coalesce(p_after, f.position - 1)
    order by rank limit p_limit
  ) p
$$;

revoke all on function public.search_messages(uuid, text, bigint, bigint, integer) from public, anon, authenticated;
grant execute on function public.search_messages(uuid, text, bigint, bigint, integer) to service_role;

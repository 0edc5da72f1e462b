-- The words of each message, for the search in the history (search_messages, which has the same expression). A word is
-- a run of letters and digits in lower case. Each begins with a part of its user's id, so the words of one user are
-- neighbours in the index, and a search reads no others, however many users there are. Only the first 32,000
-- characters count: a tsvector has at most 1 MiB, and a message with more distinct words could not be stored.
-- Built without a lock on the table, after the other files (../README.md).
drop index concurrently if exists public.messages_words; -- what an interrupted build has left

create index concurrently messages_words on public.messages using gin (
  to_tsvector('pg_catalog.simple', regexp_replace(
    ' ' || replace(lower(normalize(left(content, 32000))), 'ё', 'е'), '[^[:alnum:]]+',
    ' u' || left(user_id::text, 8), 'g'
  ))
);

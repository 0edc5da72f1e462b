-- Replies keep their reasoning and tool calls, in their order, as events on the wire. Users read them with the message.
alter table public.messages add column steps jsonb; -- null: none

-- Replaced by one that stores them, too. Only finish_turn called it, which is replaced in the same transaction.
drop function if exists private.store_reply(public.turns, text);

-- Write a replica anew, with its newest events, and publish them.
-- KEYS state, events, text
-- ARGV fence, seconds to keep, channel, message to publish, epoch, head, view, text_of, text, event…
-- Returns the head; -1 if a newer owner writes.
local FIRST_EVENT = 10
local known = redis.pcall('HGET', KEYS[1], 'fence')
if type(known) == 'string' and tonumber(known) > tonumber(ARGV[1]) then
  return -1
end
local head, count = tonumber(ARGV[6]), #ARGV - FIRST_EVENT + 1
local after = head - count
redis.call('DEL', unpack(KEYS))
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'epoch', ARGV[5], 'head', head, 'view', ARGV[7], 'text_of', ARGV[8])
redis.call('SET', KEYS[3], ARGV[9])
for place = 1, count do
  redis.call('XADD', KEYS[2], (after + place) .. '-0', 'event', ARGV[FIRST_EVENT + place - 1])
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[2])
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return head

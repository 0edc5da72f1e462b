-- Begin the log anew, without events.
-- KEYS state, events, text   ARGV fence, seconds to keep, channel, epoch, head, view, text_of, text
-- Returns 'begun', or 'fenced' if somebody newer writes.
local ok, info = pcall(redis.call, 'INFO', 'server')
local run = ok and string.match(info, 'run_id:(%x+)') or ''
local fence = redis.call('HGET', KEYS[1], 'fence')
if fence and tonumber(fence) > tonumber(ARGV[1]) then
  return 'fenced'
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'head', ARGV[5], 'view', ARGV[6], 'text_of', ARGV[7], 'fence', ARGV[1],
  'run', run)
redis.call('SET', KEYS[3], ARGV[8])
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[2])
end
redis.call('PUBLISH', ARGV[3], 'begun')
return 'begun'

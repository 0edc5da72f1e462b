-- The user's log as it is; begun with the given epoch if there is none. With a fence: from now on nobody older writes.
-- KEYS state, events, text   ARGV epoch, seconds to keep, fence ('' to look only)
-- Returns fresh, intact, epoch, head, view, text_of, text; 'fenced' if somebody newer writes.
local ok, info = pcall(redis.call, 'INFO', 'server')
local run = ok and string.match(info, 'run_id:(%x+)') or ''
local state = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'view', 'text_of', 'fence', 'run')
local fresh = not state[1]
if fresh then
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'head', 0, 'view', '', 'text_of', '', 'fence', 0, 'run', run)
  state = {ARGV[1], '0', '', '', '0', run}
end
if ARGV[3] ~= '' then
  if tonumber(state[5]) > tonumber(ARGV[3]) then
    return 'fenced'
  end
  redis.call('HSET', KEYS[1], 'fence', ARGV[3])
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[2])
end
local intact = state[6] == run
return {fresh and 1 or 0, intact and 1 or 0, state[1], state[2], state[3], state[4], redis.call('GET', KEYS[3]) or ''}

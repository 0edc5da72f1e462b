-- Append a batch behind number `head`, whole or not at all, and publish it. Appended already, it is not appended again.
-- KEYS state, events, text
-- ARGV fence, seconds to keep, channel, epoch, head, drop, with view ('1'|'0'), view, text_of, text, event…
-- Returns 'appended', 'fenced' or 'lost'.
local first_event = 11
local count = #ARGV - first_event + 1
local state = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'text_of', 'fence')
local fence, head = tonumber(ARGV[1]), tonumber(ARGV[5])
if not state[1] then
  return 'lost'
end
if tonumber(state[4]) > fence then
  return 'fenced'
end
if state[1] ~= ARGV[4] then
  return 'lost'
end
if tonumber(state[2]) == head + count and tonumber(state[4]) == fence then
  return 'appended'
end
if tonumber(state[2]) ~= head then
  return 'lost'
end
local news = {ARGV[4] .. ' ' .. ARGV[5] .. ' ' .. ARGV[7], ARGV[8]}
for place = 1, count do
  local event = ARGV[first_event + place - 1]
  redis.call('XADD', KEYS[2], (head + place) .. '-0', 'event', event)
  news[#news + 1] = event
end
redis.call('XTRIM', KEYS[2], 'MINID', (tonumber(ARGV[6]) + 1) .. '-0')
redis.call('HSET', KEYS[1], 'head', head + count, 'fence', ARGV[1])
if ARGV[7] == '1' then
  redis.call('HSET', KEYS[1], 'view', ARGV[8])
end
if ARGV[9] ~= '' then
  if ARGV[9] == state[3] then
    redis.call('APPEND', KEYS[3], ARGV[10])
  else
    redis.call('HSET', KEYS[1], 'text_of', ARGV[9])
    redis.call('SET', KEYS[3], ARGV[10])
  end
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[2])
end
redis.call('PUBLISH', ARGV[3], table.concat(news, '\n'))
return 'appended'

-- A replica's state and the running reply's text. With a fence: from now on no owner with an older one can append.
-- KEYS state, text   ARGV fence ('' to read only)
-- Returns fence, epoch, head, view, text_of, text; nothing if there is no replica; 'fenced' if a newer owner writes.
local state = redis.pcall('HMGET', KEYS[1], 'fence', 'epoch', 'head', 'view', 'text_of')
if state.err or not state[2] then
  return false
end
if ARGV[1] ~= '' then
  if tonumber(state[1]) > tonumber(ARGV[1]) then
    return 'fenced'
  end
  redis.call('HSET', KEYS[1], 'fence', ARGV[1])
end
local text = redis.pcall('GET', KEYS[2])
if type(text) ~= 'string' then
  text = ''
end
return {state[1], state[2], state[3], state[4], state[5], text}

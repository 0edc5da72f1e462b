-- The events of an epoch from one number to another, as far as they are kept.
-- KEYS state, events   ARGV epoch, first, last
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return {}
end
local found = redis.call('XRANGE', KEYS[2], ARGV[2] .. '-0', ARGV[3] .. '-0')
local events = {}
for place, entry in ipairs(found) do
  events[place] = entry[2][2]
end
return events

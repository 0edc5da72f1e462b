-- The events of an epoch from one number to another, as far as they are kept.
-- KEYS state, events   ARGV epoch, first, last
if redis.pcall('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return {}
end
local found = redis.pcall('XRANGE', KEYS[2], ARGV[2] .. '-0', ARGV[3] .. '-0')
if found.err then
  return {}
end
local events = {}
for place, entry in ipairs(found) do
  events[place] = entry[2][2]
end
return events

-- Append events behind the replicas of several sessions and publish them, each session's whole or not at all.
-- The keys are built here, so one call serves many sessions: this needs one Redis, with replicas or without, no Cluster.
-- ARGV prefix, seconds to keep, and for each session:
--   a header `user fence epoch after trim contents text_of count`, view, text, event… (as many as count)
-- `contents` is what is in view: 'view' or 'nothing'. `text_of` is '-' if there is no text.
-- Returns for each the head afterwards; -1 if a newer owner writes; -2 if there is no replica of this epoch.
local FENCED, ABSENT = -1, -2
local HEADER = '^(%S+) (%d+) (%S+) (%d+) (%d+) (%a+) (%S+) (%d+)$'

-- A key of another type is a broken replica. Anything else (full, read only) fails the call.
local function failed(answer)
  if type(answer) ~= 'table' or not answer.err then
    return false
  end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then
    return true
  end
  error(answer.err)
end

local function append(user, fence, epoch, after, trim, contents, view, text_of, text, count, first)
  local channel = ARGV[1] .. ':{' .. user .. '}'
  local state_key, events_key, text_key = channel .. ':state', channel .. ':events', channel .. ':text'
  local state = redis.pcall('HMGET', state_key, 'epoch', 'head', 'fence', 'text_of')
  if failed(state) or not state[1] then
    return ABSENT
  end
  if tonumber(state[3]) > tonumber(fence) then
    return FENCED
  end
  if state[1] ~= epoch then
    return ABSENT
  end
  local head = tonumber(state[2])
  if head ~= after then
    return head
  end
  if text_of == state[4] and redis.call('EXISTS', text_key) == 0 then -- evicted: what is added would be all of it
    return ABSENT
  end
  local message = {fence .. ' ' .. epoch .. ' ' .. after .. ' ' .. contents, view}
  for place = 1, count do
    local event = ARGV[first + place - 1]
    if failed(redis.pcall('XADD', events_key, (head + place) .. '-0', 'event', event)) then
      return ABSENT
    end
    message[#message + 1] = event
  end
  if text_of ~= '-' then
    if text_of == state[4] then
      if failed(redis.pcall('APPEND', text_key, text)) then
        return ABSENT
      end
    else
      redis.call('SET', text_key, text)
      redis.call('HSET', state_key, 'text_of', text_of)
    end
  end
  redis.call('HSET', state_key, 'head', head + count, 'fence', fence)
  if contents == 'view' then
    redis.call('HSET', state_key, 'view', view)
  end
  if trim > 0 then
    redis.call('XTRIM', events_key, 'MINID', (trim + 1) .. '-0')
  end
  for _, key in ipairs({state_key, events_key, text_key}) do
    redis.call('EXPIRE', key, ARGV[2])
  end
  redis.call('PUBLISH', channel, table.concat(message, '\n'))
  return head + count
end

local heads = {}
local place = 3
while place <= #ARGV do
  local user, fence, epoch, after, trim, contents, text_of, count = string.match(ARGV[place], HEADER)
  local view, text, first = ARGV[place + 1], ARGV[place + 2], place + 3
  count = tonumber(count)
  place = first + count
  heads[#heads + 1] =
    append(user, fence, epoch, tonumber(after), tonumber(trim), contents, view, text_of, text, count, first)
end
return heads

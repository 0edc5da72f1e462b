-- A token bucket of one minute: ARGV[1] tokens per minute, ARGV[2] what to take, or to put back where it is negative.
-- Returns the milliseconds until there is a token; 0 where it was taken. By Redis's clock.
local burst = tonumber(ARGV[1])
local cost = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = tonumber(state[1]) or burst
local passed = math.max(0, now - (tonumber(state[2]) or now))
left = math.min(burst, left + passed * burst / 60000)
if left < cost then
  return math.ceil((cost - left) * 60000 / burst)
end
redis.call('HSET', KEYS[1], 'left', math.min(burst, left - cost), 'at', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return 0

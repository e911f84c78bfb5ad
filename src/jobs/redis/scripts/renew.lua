-- Prolongs a lease that was neither lost nor given back; a lease of 0 ms gives it back.
-- KEYS: job, open    ARGV: epoch, lease in ms
-- Returns 1 if it was ours, 0 if not.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'lease', 'rest', 'id')
if job[1] ~= ARGV[1] or job[2] == '0' then
  return 0
end
local lease = '0'
if ARGV[2] ~= '0' then
  local time = redis.call('TIME')
  lease = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
end
redis.call('HSET', KEYS[1], 'lease', lease)
-- A job at rest is not due, whoever holds it.
if not job[3] then
  redis.call('ZADD', KEYS[2], lease, job[4])
end
return 1

-- Prolongs a lease that was neither lost nor given back; a lease of 0 ms gives it back.
-- KEYS: job, due    ARGV: claim, epoch, lease in ms
-- Returns 1 if it was ours, 0 if not.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'lease')
if job[1] ~= ARGV[2] or job[2] == '0' then
  return 0
end
local lease = '0'
if ARGV[3] ~= '0' then
  local time = redis.call('TIME')
  lease = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
end
redis.call('HSET', KEYS[1], 'lease', lease)
-- XX: a job at rest is not due, whoever holds it.
redis.call('ZADD', KEYS[2], 'XX', lease, ARGV[1])
return 1

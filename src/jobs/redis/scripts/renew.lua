-- Prolongs a lease that was neither lost nor given back; a lease of 0 ms gives it back.
-- KEYS: job, open    ARGV: epoch, lease in ms, owner or ''
-- Returns 1 if it was ours, 0 if not, 2 if the job is not there, or was not ours yet.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'lease', 'rest', 'id', 'owner')
if job[1] ~= ARGV[1] then
  return job[1] and tonumber(job[1]) > tonumber(ARGV[1]) and 0 or 2
end
if job[2] == '0' or (ARGV[3] ~= '' and job[5] ~= ARGV[3]) then
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

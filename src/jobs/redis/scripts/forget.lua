-- Forgets a job at rest, if it is at this version still and nobody has its lease. A lease that lapsed is nobody's: whoever
-- took it may have died before he could give it back.
-- KEYS: job, id    ARGV: version
-- Returns 1 if it was forgotten, 0 if it is another's, moved on, or was forgotten before.
local job = redis.call('HMGET', KEYS[1], 'version', 'lease', 'rest', 'id')
if job[1] ~= ARGV[1] or not job[3] then
  return 0
end
local time = redis.call('TIME')
if tonumber(job[2]) > time[1] * 1000 + math.floor(time[2] / 1000) then
  return 0
end
redis.call('ZREM', job[3], job[4])
redis.call('DEL', KEYS[1], KEYS[2])
return 1

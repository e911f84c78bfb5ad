-- Forgets a job at rest, if it is at this version still.
-- KEYS: job, id    ARGV: version
-- Returns 1 if it was forgotten, 0 if it is another's, moved on, or was forgotten before.
local job = redis.call('HMGET', KEYS[1], 'version', 'lease', 'rest', 'id')
if job[1] ~= ARGV[1] or job[2] ~= '0' or not job[3] then
  return 0
end
redis.call('ZREM', job[3], job[4])
redis.call('DEL', KEYS[1], KEYS[2])
return 1

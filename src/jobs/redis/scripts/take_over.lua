-- Takes a job whose lease has ended, unless its record is of a schema the caller cannot read.
-- KEYS: job, due    ARGV: claim, owner, lease in ms, schema
-- Returns {'taken', epoch, record}, {'held'}, or {'schema', schema}.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'lease', 'owner', 'schema')
if not job[1] then
  return {'held'}
end
if job[4] ~= ARGV[4] then
  return {'schema', job[4]}
end
local epoch = job[1]
-- The same call, sent again because its connection broke, finds its own mark.
if job[3] ~= ARGV[2] then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if tonumber(job[2]) > now then
    return {'held'}
  end
  epoch = string.format('%d', epoch + 1)
  local lease = string.format('%d', now + ARGV[3])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'lease', lease, 'owner', ARGV[2])
  redis.call('ZADD', KEYS[2], 'XX', lease, ARGV[1])
end
return {'taken', epoch, redis.call('HGET', KEYS[1], 'record')}

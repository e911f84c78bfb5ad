-- Takes a job whose lease has ended, unless its record is of a schema the caller cannot read.
-- KEYS: job, open    ARGV: owner, lease in ms, the newest schema it reads
-- Returns {'taken', epoch, fixed, record, answer, a journal line for each version}, {'held'}, or {'schema', schema}.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'lease', 'owner', 'schema', 'rest', 'id', 'version')
if not job[1] then
  return {'held'}
end
if tonumber(job[4]) > tonumber(ARGV[3]) then
  return {'schema', job[4]}
end
local epoch = job[1]
-- The same call, sent again because its connection broke, finds its own mark.
if job[3] ~= ARGV[1] then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if tonumber(job[2]) > now then
    return {'held'}
  end
  epoch = string.format('%d', epoch + 1)
  local lease = string.format('%d', now + ARGV[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'lease', lease, 'owner', ARGV[1])
  -- A job at rest is not due, whoever holds it.
  if not job[5] then
    redis.call('ZADD', KEYS[2], lease, job[6])
  end
end
local found = redis.call('HMGET', KEYS[1], 'fixed', 'record', 'answer')
local taken = {'taken', epoch, found[1], found[2], found[3]}
for version = 1, tonumber(job[7]) do
  taken[5 + version] = redis.call('HGET', KEYS[1], string.format('%d', version))
end
return taken

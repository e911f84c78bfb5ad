-- Writes a job as whoever holds it knows it, where the server has forgotten all of it or the last of it. What is there must be
-- an earlier part of the same; what is another's is left alone.
-- KEYS: job, id, open, where it rests if it does
-- ARGV: epoch, owner, lease in ms or 0, expiry in ms or '', claim, version, a journal line for each version, 'id', id,
--   further fields and values
-- Returns 1 if it was written, 2 if it was all there, 0 if it is another's.
local epoch, version = tonumber(ARGV[1]), tonumber(ARGV[6])
local id = ARGV[8 + version]
local lease = '0'
if ARGV[3] ~= '0' then
  local time = redis.call('TIME')
  lease = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
end
local job = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'version', 'rest', 'lease')
if job[1] then
  local theirs, at = tonumber(job[1]), tonumber(job[3])
  if theirs > epoch or (theirs == epoch and job[2] ~= ARGV[2]) then
    return 0
  end
  if theirs == epoch and at >= version then
    -- Its lease may be that of a while ago.
    if lease ~= '0' and job[5] ~= '0' then
      redis.call('HSET', KEYS[1], 'lease', lease)
      if not job[4] then
        redis.call('ZADD', KEYS[3], lease, id)
      end
    end
    return 2
  end
  if at > version or (at > 0 and redis.call('HGET', KEYS[1], job[3]) ~= ARGV[6 + at]) then
    return 0
  end
end
local named = redis.call('GET', KEYS[2])
if named and named ~= ARGV[5] then
  return 0
end
if job[1] then
  redis.call('ZREM', job[4] or KEYS[3], id)
  redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[2], ARGV[5])
redis.call('HSET', KEYS[1], 'lease', lease, unpack(ARGV, 7 + version))
for n = 1, version do
  redis.call('HSET', KEYS[1], string.format('%d', n), ARGV[6 + n])
end
if not KEYS[4] then
  redis.call('ZADD', KEYS[3], lease, id)
elseif ARGV[4] == '' then
  redis.call('ZADD', KEYS[4], '+inf', id)
else
  redis.call('ZADD', KEYS[4], ARGV[4], id)
  redis.call('PEXPIREAT', KEYS[1], ARGV[4])
end
return 1

-- Writes a later version of a job and the journal lines that made it, if the lease and the version allow it.
-- KEYS: job, journal, id, due, state
-- ARGV: claim, epoch, version before, version, record, schema, 'rest' or '', expiry in ms or '', lines
-- Returns 1 if written, now or by the same call before; 0 if fenced.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'lease', 'id', 'state')
if job[1] ~= ARGV[2] then
  return 0
end
if job[2] == ARGV[4] and redis.call('HGET', KEYS[1], 'record') == ARGV[5] then
  return 1
end
if job[2] ~= ARGV[3] or job[3] == '0' then
  return 0
end
local rest = ARGV[7] == 'rest'
redis.call('HSET', KEYS[1], 'record', ARGV[5], 'version', ARGV[4], 'schema', ARGV[6], 'state', KEYS[5],
  'lease', rest and '0' or job[3])
redis.call('RPUSH', KEYS[2], unpack(ARGV, 9))
if rest then
  redis.call('ZREM', KEYS[4], ARGV[1])
else
  redis.call('ZADD', KEYS[4], job[3], ARGV[1])
end
if job[5] ~= KEYS[5] then
  redis.call('ZREM', job[5], job[4])
end
if ARGV[8] == '' then
  redis.call('ZADD', KEYS[5], '+inf', job[4])
  -- All three expire, or none.
  if redis.call('PERSIST', KEYS[1]) == 1 then
    for key = 2, 3 do redis.call('PERSIST', KEYS[key]) end
  end
else
  -- Entries of a sorted set do not expire by themselves: each that comes takes two that are past with it.
  local time = redis.call('TIME')
  local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
  local past = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 2)
  if #past > 0 then redis.call('ZREM', KEYS[5], unpack(past)) end
  redis.call('ZADD', KEYS[5], ARGV[8], job[4])
  for key = 1, 3 do redis.call('PEXPIREAT', KEYS[key], ARGV[8]) end
end
return 1

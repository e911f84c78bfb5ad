-- Registers a client payment, first wins.
-- KEYS: job, id, due, state    ARGV: claim, id, owner, lease in ms, schema, version, record
-- Returns {'won', record}, {'taken', record}, or {'id', ''} if another job has the id.
local found = redis.call('HMGET', KEYS[1], 'owner', 'record')
if found[2] then
  -- The same call, sent again because its connection broke, finds its own mark.
  return {found[1] == ARGV[3] and 'won' or 'taken', found[2]}
end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX') then
  return {'id', ''}
end
local time = redis.call('TIME')
local lease = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4])
redis.call('HSET', KEYS[1], 'record', ARGV[7], 'version', ARGV[6], 'schema', ARGV[5],
  'epoch', 1, 'lease', lease, 'owner', ARGV[3], 'id', ARGV[2], 'state', KEYS[4])
redis.call('ZADD', KEYS[3], lease, ARGV[1])
redis.call('ZADD', KEYS[4], '+inf', ARGV[2])
return {'won', ARGV[7]}

-- Registers a client payment, first wins.
-- KEYS: job, id, open    ARGV: lease in ms, claim, 'owner', owner, 'id', id, further fields and values
-- Returns {'won'}, {'taken', fixed, record, answer}, or {'id'} if another job has the id.
local found = redis.call('HMGET', KEYS[1], 'owner', 'fixed', 'record', 'answer')
if found[3] then
  -- The same call, sent again because its connection broke, finds its own mark.
  if found[1] == ARGV[4] then
    return {'won'}
  end
  return {'taken', found[2], found[3], found[4]}
end
if not redis.call('SET', KEYS[2], ARGV[2], 'NX') then
  return {'id'}
end
local time = redis.call('TIME')
local lease = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
redis.call('HSET', KEYS[1], 'epoch', '1', 'lease', lease, unpack(ARGV, 3))
redis.call('ZADD', KEYS[3], lease, ARGV[6])
return {'won'}

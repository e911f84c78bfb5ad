-- Writes a small value and its place in the index of its space.
-- KEYS: value, index    ARGV: key, value, time to live in ms or '', 'new' or ''
-- With 'new', returns the value that is there already and writes nothing; else returns false.
if ARGV[4] == 'new' then
  local there = redis.call('GET', KEYS[1])
  if there then return there end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('ZADD', KEYS[2], '+inf', ARGV[1])
else
  local expiry = string.format('%d', now + ARGV[3])
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('PEXPIREAT', KEYS[1], expiry)
  redis.call('ZADD', KEYS[2], expiry, ARGV[1])
end
-- Entries of a sorted set do not expire by themselves: each that comes takes two that are past with it.
local past = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%d', now), 'LIMIT', 0, 2)
if #past > 0 then redis.call('ZREM', KEYS[2], unpack(past)) end
return false

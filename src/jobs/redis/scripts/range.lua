-- Members of a sorted set of times, oldest first.
-- KEYS: set    ARGV: 'future' or 'all', at most how many (-1: all)
if ARGV[1] == 'all' then
  return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, ARGV[2])
end
local time = redis.call('TIME')
local now = string.format('(%d', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'LIMIT', 0, ARGV[2])

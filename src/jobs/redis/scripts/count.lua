-- How many members each sorted set of times has.
-- KEYS: sets    ARGV: for each, 'future' or 'all'
local time = redis.call('TIME')
local now = string.format('(%d', time[1] * 1000 + math.floor(time[2] / 1000))
local counts = {}
for n, key in ipairs(KEYS) do
  counts[n] = redis.call('ZCOUNT', key, ARGV[n] == 'all' and '-inf' or now, '+inf')
end
return counts

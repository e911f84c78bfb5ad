-- How many members of each sorted set of times are not past.
-- KEYS: sets
local time = redis.call('TIME')
local now = string.format('(%d', time[1] * 1000 + math.floor(time[2] / 1000))
local counts = {}
for n, key in ipairs(KEYS) do
  counts[n] = redis.call('ZCOUNT', key, now, '+inf')
end
return counts

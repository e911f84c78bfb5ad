-- Members of sorted sets of times that are past, oldest first.
-- KEYS: sets    ARGV: at most how many
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local past = {}
for _, key in ipairs(KEYS) do
  local found = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
  for n = 1, #found, 2 do
    past[#past + 1] = {tonumber(found[n + 1]), found[n]}
  end
end
table.sort(past, function(a, b) return a[1] < b[1] end)
local oldest = {}
for n = 1, math.min(#past, tonumber(ARGV[1])) do
  oldest[n] = past[n][2]
end
return oldest

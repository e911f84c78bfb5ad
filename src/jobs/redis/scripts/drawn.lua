-- What the live slices of a limit are together.
-- KEYS: slices (hash: slice -> 'end size')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sum = 0
for _, slice in ipairs(redis.call('HVALS', KEYS[1])) do
  local ends, size = string.match(slice, '^(%d+) (%d+)$')
  if tonumber(ends) > now then sum = sum + tonumber(size) end
end
return sum

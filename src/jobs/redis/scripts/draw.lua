-- Makes a slice of a shared limit larger or smaller.
-- KEYS: slices (hash: slice -> 'end size')    ARGV: slice, wanted, least, limit, time to live in ms
-- Returns what the slice is then, or -1 if nothing changed.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local own, others = 0, 0
local all = redis.call('HGETALL', KEYS[1])
for n = 1, #all, 2 do
  local ends, size = string.match(all[n + 1], '^(%d+) (%d+)$')
  if tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], all[n])
  elseif all[n] == ARGV[1] then
    own = tonumber(size)
  else
    others = others + tonumber(size)
  end
end
-- What a slice has it may keep, whatever the limit is by now: it may be spent.
local free = math.max(tonumber(ARGV[4]) - others, own)
local granted = math.min(tonumber(ARGV[2]), free)
if granted < tonumber(ARGV[3]) then
  return -1
end
if granted == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %d', now + ARGV[5], granted))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return granted

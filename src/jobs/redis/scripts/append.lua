-- Writes a later version of a job and the journal lines that made it, if the lease and the version allow it.
-- KEYS: job, id, open, where it rests if it does
-- ARGV: epoch, version before, expiry in ms or '', entries to tidy away, a field that goes or '', owner or '',
--   'version', version, 'record', record, further fields and values
-- Returns 1 if written, now or by the same call before; 0 if fenced; 2 if the job is not there, or not as far.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'lease', 'id', 'rest', 'owner')
if job[1] ~= ARGV[1] then
  return job[1] and tonumber(job[1]) > tonumber(ARGV[1]) and 0 or 2
end
if ARGV[6] ~= '' and job[6] ~= ARGV[6] then
  return 0
end
if job[2] == ARGV[8] and redis.call('HGET', KEYS[1], 'record') == ARGV[10] then
  return 1
end
if job[2] ~= ARGV[2] then
  return tonumber(job[2]) < tonumber(ARGV[2]) and 2 or 0
end
if job[3] == '0' then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
if ARGV[5] ~= '' then
  redis.call('HDEL', KEYS[1], ARGV[5])
end
local open, expiry = KEYS[3], ARGV[3]
local from, to = job[5] or open, KEYS[4] or open
if from ~= to then
  redis.call('ZREM', from, job[4])
end
if to ~= open then
  redis.call('ZADD', to, expiry == '' and '+inf' or expiry, job[4])
elseif from ~= open then
  redis.call('HDEL', KEYS[1], 'rest')
  redis.call('ZADD', open, job[3], job[4])
end
if expiry ~= '' then
  redis.call('PEXPIREAT', KEYS[1], expiry)
elseif from ~= open then
  redis.call('PERSIST', KEYS[1])
end
if ARGV[4] ~= '0' then
  -- Entries of a sorted set do not expire by themselves, and each takes its id with it.
  local time = redis.call('TIME')
  local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
  local past = redis.call('ZRANGEBYSCORE', to, '-inf', now, 'LIMIT', 0, ARGV[4])
  if #past > 0 then
    redis.call('ZREM', to, unpack(past))
    local ids = string.sub(KEYS[2], 1, -1 - #job[4])
    for n, id in ipairs(past) do past[n] = ids .. id end
    redis.call('DEL', unpack(past))
  end
end
return 1

-- Writes a later version of a job and the journal lines that made it, if the lease and the version allow it.
-- KEYS: job, id, state
-- ARGV: epoch, version before, version, record, schema, 'rest' or '', expiry in ms or '', answer, 'none' or '' (as it is),
--   entries to tidy away, lines
-- Returns 1 if written, now or by the same call before; 0 if fenced.
local job = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'lease', 'id', 'state', 'rest')
if job[1] ~= ARGV[1] then
  return 0
end
if job[2] == ARGV[3] and redis.call('HGET', KEYS[1], 'record') == ARGV[4] then
  return 1
end
if job[2] ~= ARGV[2] or job[3] == '0' then
  return 0
end
local rest, moved = ARGV[6] == 'rest', job[5] ~= KEYS[3]
local fields = {'record', ARGV[4], 'version', ARGV[3], 'schema', ARGV[5], 'state', KEYS[3], 'rest', ARGV[6]}
local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
if rest then
  set('lease', '0')
end
if ARGV[8] == 'none' then
  redis.call('HDEL', KEYS[1], 'answer')
elseif ARGV[8] ~= '' then
  set('answer', ARGV[8])
end
for line = 10, #ARGV do
  set(string.format('%d', ARGV[2] + line - 9), ARGV[line])
end
redis.call('HSET', KEYS[1], unpack(fields))
if moved then
  redis.call('ZREM', job[5], job[4])
end
if rest then
  redis.call('ZADD', KEYS[3], ARGV[7] == '' and '+inf' or ARGV[7], job[4])
elseif moved then
  redis.call('ZADD', KEYS[3], job[3], job[4])
end
-- Both expire, or none.
if ARGV[7] ~= '' then
  for key = 1, 2 do redis.call('PEXPIREAT', KEYS[key], ARGV[7]) end
elseif job[6] == 'rest' then
  for key = 1, 2 do redis.call('PERSIST', KEYS[key]) end
end
if ARGV[9] ~= '0' then
  -- Entries of a sorted set do not expire by themselves.
  local time = redis.call('TIME')
  local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
  local past = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[9])
  if #past > 0 then redis.call('ZREM', KEYS[3], unpack(past)) end
end
return 1

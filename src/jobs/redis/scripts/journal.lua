-- The journal lines of a job, oldest first.
-- KEYS: job
local lines = {}
for version = 1, tonumber(redis.call('HGET', KEYS[1], 'version') or 0) do
  lines[version] = redis.call('HGET', KEYS[1], string.format('%d', version))
end
return lines

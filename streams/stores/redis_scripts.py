"""The scripts of the Redis store, in Lua: each runs alone and whole. What they do is told in `redis.py`.

`_OWNED` begins what only the owner may do: ARGV 1 to 3 are its epoch, what proves its claim, and its last save.
"""

CLAIM = """
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
if redis.call('HEXISTS', KEYS[1], 'record') == 0 then redis.call('HSET', KEYS[1], 'generation', ARGV[2]) end
local kept = redis.call('HMGET', KEYS[1], 'generation', 'number', 'record')
return {epoch, kept[1], kept[2], kept[3]}
"""

_OWNED = """
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'number')
if (tonumber(kept[1] or 0) or 0) > tonumber(ARGV[1]) then return redis.error_reply('FENCED ' .. kept[1]) end
local number = tonumber(kept[3] or 0)
if kept[2] ~= ARGV[2] or not number or number < tonumber(ARGV[3]) then return redis.error_reply('LOST') end
"""

MAY_SAVE = f"""{_OWNED}
if number >= tonumber(ARGV[4]) then return redis.error_reply('LOST') end
"""

PUT = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[1]) end"

# A transaction goes on after an error. What keeps a state from being set, as a right that is missing, keeps the number
# and the record from it, too.
SAVE = """
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[1]) end
redis.call('HSET', KEYS[1], 'number', ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'record', ARGV[3]) end
"""

BEGIN_ROUND = f"""{_OWNED}
if redis.call('EXISTS', KEYS[2]) == 0 then return end
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('RENAME', KEYS[2], KEYS[3]) return end
redis.call('SUNIONSTORE', KEYS[3], KEYS[3], KEYS[2])
redis.call('UNLINK', KEYS[2])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
"""

END_ROUND = f"""{_OWNED}
redis.call('UNLINK', KEYS[2])
"""

# A key that holds no string is no state: like an empty one it will be refused.
LOAD = f"""{_OWNED}
local states = {{}}
for i = 2, #KEYS do
  local state = redis.pcall('GET', KEYS[i])
  states[i - 1] = type(state) == 'table' and '' or state
end
return states
"""

# Of a damaged checkpoint nothing may be taken for granted, not even that it is a hash.
SET_ASIDE = """
local owner = redis.pcall('HGET', KEYS[1], 'owner')
if type(owner) ~= 'table' and owner ~= ARGV[1] then return redis.error_reply('LOST') end
local epoch = redis.pcall('HGET', KEYS[1], 'epoch')
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if type(epoch) == 'string' and string.match(epoch, '^%d+$') and #epoch < 16 then
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HSET', KEYS[2], 'entity', KEYS[3])
  redis.call('RENAME', KEYS[3], KEYS[4])
  redis.call('PEXPIRE', KEYS[4], ARGV[2])
end
"""

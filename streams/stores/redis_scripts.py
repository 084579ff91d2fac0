"""The scripts of the Redis store, in Lua: each runs alone and whole. What they do is told in `redis.py`.

`_OWNED` begins what only the owner may do: ARGV 1 to 3 are its epoch, what proves its claim, and its last save.
"""

CLAIM = """
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
if redis.call('HEXISTS', KEYS[1], 'record') == 0 then redis.call('HSET', KEYS[1], 'generation', ARGV[2]) end
local kept = redis.call('HMGET', KEYS[1], 'generation', 'record', 'number', 'period', 'since')
return {epoch, redis.call('TIME')[1], unpack(kept)}
"""

_OWNED = """
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'number')
if (tonumber(kept[1] or 0) or 0) > tonumber(ARGV[1]) then return redis.error_reply('FENCED ' .. kept[1]) end
local number = tonumber(kept[3] or 0)
if kept[2] ~= ARGV[2] or not number or number < tonumber(ARGV[3]) then return redis.error_reply('LOST') end
"""

# What is no hash, behind the store's back, is an error here, before anything is written.
MAY_SAVE = f"""{_OWNED}
if number >= tonumber(ARGV[4]) then return redis.error_reply('LOST') end
local former = {{}}
for i = 2, #KEYS, 2 do
  redis.call('HLEN', KEYS[i])
  former[i / 2] = redis.call('HLEN', KEYS[i + 1])
end
return former
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


def _states(keys: int, values: int) -> str:
    """Return what answers with states: after so many KEYS and ARGV, those that `redis_keys.places` tells.

    What is in a hash that is none is no state: like an empty one it will be refused.
    """
    return f"""
local states = {{}}
for i = {values} + 1, #ARGV, 2 do
  local at = {keys} + 1 + ARGV[i]
  local state = redis.pcall('HGET', KEYS[at], ARGV[i + 1]) or redis.pcall('HGET', KEYS[at + 1], ARGV[i + 1])
  states[#states + 1] = type(state) == 'table' and '' or state
end
return states
"""


LOAD = _OWNED + _states(keys=1, values=3)

READ = """
local kept = redis.call('HMGET', KEYS[1], 'generation', 'period')
if kept[1] ~= ARGV[1] or (kept[2] or '') ~= ARGV[2] then return false end
""" + _states(keys=1, values=2)

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
for i = 4, #KEYS do
  local state = redis.pcall('HGET', KEYS[i], ARGV[3])
  if state then
    redis.call('HSET', KEYS[2], 'entity', ARGV[3])
    if type(state) == 'table' then redis.call('RENAME', KEYS[i], KEYS[3]) else redis.call('SET', KEYS[3], state) end
    redis.call('PEXPIRE', KEYS[3], ARGV[2])
    return
  end
end
"""

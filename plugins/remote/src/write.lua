-- Carries out writes to KEYS in their order, each if its condition allows it, and answers one digit for each: 1 applied, 0 stale.
--
-- ARGV[1] condition: newer, not-older or always
-- ARGV[2] the time of the call, in Unix milliseconds
-- ARGV[3] what the writes are: put or delete
-- ARGV[4] the fencing token of writes that are not newer, in 20 decimal digits; empty: there is none
-- then, for each key: its stamp (20 decimal digits, so that stamps compare as strings: a Lua number is too small for them),
-- its expiry (Unix milliseconds, or empty for none), and for a put its value
local condition, now, put = ARGV[1], tonumber(ARGV[2]), ARGV[3] == 'put'
local fence = condition ~= 'newer' and ARGV[4] or ''
local outcomes, at = {}, 5
-- Whether a field holds what this script may have put there: 20 digits that fit into 64 bits.
local function is_number(text)
  return text and #text == 20 and not string.find(text, '%D') and text <= '18446744073709551615'
end
for i, key in ipairs(KEYS) do
  local stamp, expires, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + (put and 3 or 2)
  local stored = redis.pcall('HMGET', key, 'stamp', 'expires', 'deleted', 'fence')
  if stored.err then
    if not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
    -- Somebody else's, in the place of a copy.
    redis.call('DEL', key)
    stored = {}
  end
  local applies = true
  -- What has expired counts as absent, and so does what this script can't have written.
  if is_number(stored[1]) and not (stored[2] and (tonumber(stored[2]) or 0) <= now) then
    if condition == 'newer' then
      applies = stamp > stored[1]
    elseif condition == 'not-older' then
      applies = stamp >= stored[1]
    elseif stamp < stored[1] then
      stamp = stored[1]
    end
  end
  -- A token outlives what has expired: whoever has lost the right to write has lost it for good.
  if condition ~= 'newer' and is_number(stored[4]) and fence < stored[4] then applies = false end
  if applies then
    if fence ~= '' and fence ~= stored[4] then redis.call('HSET', key, 'fence', fence) end
    if put then
      if stored[3] then redis.call('HDEL', key, 'deleted') end
    elseif stored[1] and not stored[3] then
      redis.call('HDEL', key, 'value')
    end
    local field, content = put and 'value' or 'deleted', put and value or '1'
    if expires == '' then
      redis.call('HSET', key, 'stamp', stamp, field, content)
      if stored[2] then
        redis.call('HDEL', key, 'expires')
        redis.call('PERSIST', key)
      end
    else
      redis.call('HSET', key, 'stamp', stamp, 'expires', expires, field, content)
      -- The server can't count beyond 2^63, which is some 292 million years away.
      if #expires < 19 then redis.call('PEXPIREAT', key, expires) else redis.call('PERSIST', key) end
    end
  end
  outcomes[i] = applies and '1' or '0'
end
return table.concat(outcomes)

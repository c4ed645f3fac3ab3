-- Each request puts a value of the same size under one of 2,000 keys.
local digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
local function base64(text)
  local out = {}
  for at = 1, #text, 3 do
    local a, b, c = text:byte(at, at + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    for shift = 3, 0, -1 do
      local index = math.floor(bits / 64 ^ shift) % 64 + 1
      out[#out + 1] = digits:sub(index, index)
    end
    if not b then out[#out - 1] = '=' end
    if not c then out[#out] = '=' end
  end
  return table.concat(out)
end
local keys, n = {}, 0
for name = 0, 1999 do keys[name] = base64('n' .. name .. '.bench.peak/AAAA') end
request = function()
  n = n + 1
  local value = base64(string.format('30 fd00::%x:%x', math.floor(n / 65536), n % 65536))
  local body = '{"key":"' .. keys[n % 2000] .. '","value":"' .. value .. '"}'
  return wrk.format('POST', '/v3/kv/put', {['Content-Type'] = 'application/json'}, body)
end

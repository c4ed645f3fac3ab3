-- Each request gives one of 2,000 names another address.
local n = 0
request = function()
  n = n + 1
  local name = n % 2000
  local body = string.format(
    '{"zones":[{"zone":"bench.peak","changes":[{"do":"replace","name":"n%d","type":"AAAA","ttl":30,"data":["fd00::%x:%x"]}]}]}',
    name, math.floor(n / 65536), n % 65536)
  return wrk.format('POST', '/v1/changes', {['Content-Type'] = 'application/json'}, body)
end

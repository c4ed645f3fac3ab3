-- Each request gives one of 2,000 names another address.
-- With an argument, each connection waits so many milliseconds between two requests.
local n = 0
init = function(arguments)
  local pause = tonumber(arguments[1])
  if pause then
    delay = function() return pause end
  end
end
request = function()
  n = n + 1
  local name = n % 2000
  local body = string.format(
    '{"zones":[{"zone":"bench.peak","changes":[{"do":"replace","name":"n%d","type":"AAAA","ttl":30,"data":["fd00::%x:%x"]}]}]}',
    name, math.floor(n / 65536), n % 65536)
  return wrk.format('POST', '/v1/changes', {['Content-Type'] = 'application/json'}, body)
end

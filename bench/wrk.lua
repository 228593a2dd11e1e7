-- What wrk is to send, from its arguments (METHOD PATH BYTES USERS), and its result as one line of JSON.
local count, bodies, method, path, body, users

function init(args)
  method, path = args[1], args[2]
  users = tonumber(args[4])
  if tonumber(args[3]) > 0 then body = string.rep("x", tonumber(args[3])) end
  count = 0
  bodies = {}
  for user = 0, math.min(users, 1000) - 1 do
    bodies[user] = wrk.format(method, path, {["Host"] = "127.0.0.1", ["X-User-ID"] = "user" .. user}, body)
  end
end

function request()
  count = count + 1
  return bodies[count % users]
end

function done(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format(
    '\nresult {"requests":%d,"seconds":%f,"bytes":%d,"faults":%d,"p50":%f,"p99":%f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    bad.connect + bad.read + bad.write + bad.status + bad.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end

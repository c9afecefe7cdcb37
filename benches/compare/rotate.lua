-- wrk: each request names the next tenant. Usage: wrk -s rotate.lua URL -- TENANTS_FILE
-- Requests are made once, so that the generator costs as little as it can.

local requests, turn = {}, 0

function init(args)
    for finess in io.lines(args[1]) do
        requests[#requests + 1] = wrk.format("GET", "/dmp/bench", { ["X-Finess"] = finess, ["Host"] = wrk.headers["Host"] })
    end
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{"requests":%d,"micros":%d,"failed":%d,"p50_us":%d,"p99_us":%d}',
        summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end

"""The script that keeps a moving window in Redis, under one key for each user or address.

The key's value is a MessagePack array of three:

- the slices of the window, oldest first: the time of the last request, then how many it has;
- the leases of the workers: the worker, how many requests it may allow, until when;
- the time of the first request in the newest slice.

All times are Redis's own, in microseconds. The key expires with its newest request, in the same
script, so a crash at any point leaves nothing that would have to be removed.

A lease allows a worker to count requests that it reports later. So the requests in a window are at
most the limit, and the leases. All leases together are at most `cap`. A lease of a worker that does
not report ends by itself. A request is refused only if the limit is used; that leases are not used
yet refuses none.
"""

import hashlib

# KEYS: the key.
# ARGV: limit, window, length of a slice, life of a lease, cap (times in microseconds); the worker;
#       how many requests it has allowed since its last report; how many it may still allow; how
#       many wait for a verdict now.
# Returns how many of these are allowed; how many more the window would allow; the worker's lease;
#       microseconds until a further request becomes available, even if all leases are used.
SCRIPT = """
local limit, window, width = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local life, cap, worker = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local spent, held, need = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local old, leased, first = {}, {}, now
local state = redis.call('GET', KEYS[1])
if state then
    local read, found = pcall(cmsgpack.unpack, state)
    if read and type(found) == 'table' and #found == 3 then
        old, leased, first = found[1], found[2], found[3]
    end
end

-- If the clock has gone back, no time is later than now: else a request would count too long.
first = math.min(first, now)
local slices, used = {}, 0
for i = 1, #old, 2 do
    local at = math.min(old[i], now)
    if at + window > now then
        slices[#slices + 1] = at
        slices[#slices + 1] = old[i + 1]
        used = used + old[i + 1]
    end
end
local leases, others, had = {}, 0, false
for i = 1, #leased, 3 do
    local ends = leased[i + 2]
    if leased[i] == worker then
        had = true
    elseif ends > now and ends <= now + life then
        for j = i, i + 2 do leases[#leases + 1] = leased[j] end
        others = others + leased[i + 1]
    end
end

local granted = math.min(need, math.max(limit - used - spent, 0))
local count = spent + granted
if count > 0 then
    local last = #slices
    if last > 0 and now - first <= width then
        slices[last - 1], slices[last] = now, slices[last] + count
    else
        slices[last + 1], slices[last + 2], first = now, count, now
    end
    used = used + count
end
local free = math.max(limit - used, 0)

-- Half of what is left, so that another worker gets some. It may use what it holds at this moment.
local lease = math.max(held, math.ceil((math.min(cap, free) - others) / 2), 0)
if lease > 0 then
    leases[#leases + 1] = worker
    leases[#leases + 1] = lease
    leases[#leases + 1] = now + life
end
if count > 0 or lease > 0 or had then
    local value = cmsgpack.pack({slices, leases, first})
    redis.call('SET', KEYS[1], value, 'PX', math.ceil(window / 1000) + 1)
end

local wait, excess = 0, used - limit
if free == 0 then excess = excess + others + held end
for i = 1, #slices, 2 do
    wait, excess = slices[i] + window - now, excess - slices[i + 1]
    if excess < 0 then break end
end
return {granted, free, lease, wait}
"""
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

-- What wrk sends and counts. The harness chooses by environment:
--   WORKLOAD    a key of `workloads` below
--   SEED        makes each round's random numbers, the same for every contestant
--   ITEMS       rows that stand throughout: ids 1 to ITEMS
--   COLLECTION  the path of the list, `/items` (a program may register `/items/`)
--   CURSOR      for `cursor`: the cursor to ask with; PAGE for `page`

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long tv_sec; long tv_nsec; } bench_timespec;
  int clock_gettime(int clock, bench_timespec *t);
]]
local timespec = ffi.new("bench_timespec")
local function now() -- microseconds of a clock that only goes forward
  ffi.C.clock_gettime(1, timespec)
  return tonumber(timespec.tv_sec) * 1e6 + tonumber(timespec.tv_nsec) / 1e3
end

local items = tonumber(os.getenv("ITEMS"))
local collection = os.getenv("COLLECTION")
local random = math.random
math.randomseed(tonumber(os.getenv("SEED")))

local END = " HTTP/1.1\r\nHost: bench\r\n\r\n"
local NO_CACHE = " HTTP/1.1\r\nHost: bench\r\nCache-Control: no-cache\r\n\r\n"
local function get(path)
  return "GET " .. path .. END
end
local function send(method, path, body)
  return method .. " " .. path .. " HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

local function read()
  return get("/items/" .. random(items))
end

-- Every id once, from ITEMS on.
local swept = items - 1
local function sweep()
  swept = swept + 1
  return get("/items/" .. swept)
end

-- Zipf with exponent 1: a table of ids drawn beforehand, gone through in order.
local drawn, place = {}, 0
local function draw()
  local sums, sum = {}, 0
  for id = 1, items do
    sum = sum + 1 / id
    sums[id] = sum
  end
  for n = 1, 65536 do
    local wanted, low, high = random() * sum, 1, items
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < wanted then low = middle + 1 else high = middle end
    end
    drawn[n] = get("/items/" .. (low * 7919) % items + 1) -- the popular ones lie apart
  end
end
local function hot()
  place = place % 65536 + 1
  return drawn[place]
end

local function create()
  return send("POST", collection, string.format(
    '{"name": "Brass Widget %d", "description": "Made by the benchmark", "price": %d.%02d}',
    random(1000000), random(0, 999), random(0, 99)))
end

-- Names that no other round has.
local first_key, keys = string.format("%.0f", now()), 0
-- A create with an Idempotency-Key that was never sent before.
local function keyed()
  keys = keys + 1
  return (create():gsub("\r\n", "\r\nIdempotency-Key: " .. first_key .. "-" .. keys .. "\r\n", 1))
end

-- A new user; no round has the same.
local function user()
  keys = keys + 1
  local name = "u" .. first_key .. "-" .. keys
  return send("POST", "/users", string.format(
    '{"username": "%s", "email": "%s@example.com", "full_name": "Ada Lovelace"}', name, name))
end

local function patch()
  local path = "/items/" .. random(items)
  if random(2) == 1 then
    return send("PATCH", path, string.format('{"price": %d.%02d}', random(0, 999), random(0, 99)))
  end
  return send("PATCH", path, string.format('{"description": "Changed to %d"}', random(1000000)))
end

local nouns = {"widget", "lamp", "hinge", "notebook", "kettle", "bracket", "whistle", "compass"}
local function search()
  return get(collection .. "?q=" .. nouns[random(#nouns)] .. "%20" .. random(10, 99))
end

local function mixed() -- 80 % reads, 15 % changes, 5 % creations
  local die = random(100)
  if die <= 80 then return read() end
  if die <= 95 then return patch() end
  return create()
end

local function always(one)
  return function() return one end
end

local workloads = {
  read = read, sweep = sweep, hot = hot, create = create, patch = patch, search = search, mixed = mixed,
  keyed = keyed, user = user,
  list = always(get(collection)),
  ["list-no-cache"] = always("GET " .. collection .. NO_CACHE),
  constant = always(get("/items/1")),
  page = always(get(collection .. "?page=" .. (os.getenv("PAGE") or 1) .. "&per_page=10")),
  cursor = always(get(collection .. "?cursor=" .. (os.getenv("CURSOR") or "") .. "&per_page=10")),
}
-- `create-1000` is `create` with other connections, `page-1000` a `page`.
local name = os.getenv("WORKLOAD")
local chosen = workloads[name] or workloads[name:match("^%a+")]
if chosen == hot then draw() end

request = chosen

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end

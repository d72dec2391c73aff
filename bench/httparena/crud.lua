-- The load of HttpArena's CRUD profile, for wrk: 20 templates in rotation.
-- SEED fixes the ids; creates count up from START (100001), each thread ten million further on.

local threads, creates, sent = 0, 0, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  math.randomseed(tonumber(os.getenv("SEED") or "1") + 7919 * number)
  creates = tonumber(os.getenv("START") or "100001") + 10000000 * number
end

local host = " HTTP/1.1\r\nHost: localhost\r\n"
-- A connection lives for 200 requests, on average: wrk opens a new one when the answer says `close`,
-- but does not tell which connection asks; so each 200th request of the thread ends its own.
local function finish(line, body)
  sent = sent + 1
  local head = line .. host
  if sent % 200 == 0 then
    head = head .. "Connection: close\r\n"
  end
  if not body then
    return head .. "\r\n"
  end
  return head .. "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local function read()
  return finish("GET /crud/items/" .. math.random(1, 50000))
end

local function update()
  local id = math.random(1, 50000)
  local body = '{"name":"Updated %d","price":%d,"quantity":%d}'
  return finish("PUT /crud/items/" .. id,
    body:format(id, math.random(1, 1000), math.random(0, 500)))
end

local function list()
  return finish("GET /crud/items?category=office&page=" .. math.random(1, 10) .. "&limit=10")
end

local function create()
  local body = '{"id":%d,"name":"Created %d","category":"electronics","price":%d,"quantity":%d}'
  local id = creates
  creates = creates + 1
  return finish("POST /crud/items",
    body:format(id, id, math.random(1, 1000), math.random(0, 500)))
end

local rotation = {
  read, read, read, read, update,
  read, read, read, read, update,
  read, read, read, read, update,
  read, read, read, list, create,
}
local turn = 0

function request()
  turn = turn % #rotation + 1
  return rotation[turn]()
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end

-- Reads a page of a stream's log, with what is needed to judge it, all of one moment. For many entries
-- it is asked for the summary only, in one transaction with XRANGE: to look at each one here would
-- take Redis six times as long.
--
-- KEYS[1]  the log
-- ARGV[1]  where the page starts: after (behind a cursor), newest (the newest n events) or all
-- ARGV[2]  after: the cursor <epoch>-<seq>; newest: n; all: nothing
-- ARGV[3]  entries that the page holds at the most; 0 for the summary only
-- ARGV[4]  bytes of frames after which the page ends; one entry always fits
-- ARGV[5]  the witness: what the reader knows the log to hold, <epoch>-<seq>-<tag>, or ''. A log that
--          doesn't is given up for a new life, which the next publication begins.
--
-- Reply:
--   1  the server's clock in microseconds
--   2  milliseconds until the log expires; -1 if it doesn't, -2 if there is none
--   3  length of the log
--   4  the last id ever generated that can be ours, or ''; with the seq 0 a reader has given up what
--      was before
--   5  the newest entry: {id, tag}, tag 0 if it is foreign; {} if the log holds nothing of ours
--   6  1 if the newest publication is the end, else 0
--   7  the oldest entry: {id, tag}, or {}
--   8  the entry at the cursor: {tag, kind}, tag 0 and kind '' if it is foreign; or {}
--   9  1 if the page goes up to the newest entry, else 0
--  10  the page, as runs: {previous, frame, frame, ...} are publications that follow one another,
--      each at the next seq, and the tag of the entry before them; {id} is a foreign entry
--  11  in a summary: bytes of an entry behind the cursor, the mean of some that are spread over all
--      of these; else, and where there is none, 0

local log = KEYS[1]
local start, limit, most_bytes = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
-- Entries between the first behind the cursor and the newest whose size is looked at, and how far
-- they are from one another, as a part of all: no rhythm in which large ones come escapes that.
local SAMPLES = 16
local STRIDE = 0.618034

local state = describe(log)
local newest = newest_publication(log, state)
local is_ahead = leave_out_what_is_ahead(state, newest)
local ended = newest ~= nil and newest.kind == 'end'

-- Not where XADD can't go on: who sends next makes a log of it that it can.
if not ended and not is_ahead and has_lost(log, state, newest, ARGV[5]) then
  -- Given up: what comes next belongs to the life that begins here, as XINFO STREAM says from now on.
  local given_up = string.format('%.0f-0', next_epoch(state, ARGV[5]))
  local added = redis.pcall('XADD', log, given_up, 'given', 'up')
  if type(added) == 'string' then
    redis.call('XDEL', log, given_up)
    state.generated = given_up
  elseif not (string.find(added.err, '^OOM') or string.find(added.err, '^NOREPLICAS')) then
    return added
  end
  -- Who can't write now may read: nothing newer can be sent either, and the next read tells again.
end

local function summary(entry)
  if not entry or not newest then
    return {}
  end
  local found = publication(entry)
  return {entry[1], found and found.tag or '0'}
end

local function size_of(entry)
  local bytes = 0
  for i = 2, #entry[2], 2 do
    bytes = bytes + #entry[2][i]
  end
  return bytes
end

-- The mean size of entries from one of them on.
local function mean_size(behind)
  local bytes, count = size_of(behind) + size_of(state.newest), 2
  local epoch, seq = numbers(behind[1])
  local last_epoch, last_seq = numbers(state.newest[1])
  if epoch == last_epoch then
    for i = 1, SAMPLES do
      if bytes > most_bytes then
        break
      end
      local between = seq + math.floor((last_seq - seq) * (i * STRIDE % 1))
      local id = string.format('%.0f-%.0f', epoch, between)
      local entry = redis.call('XRANGE', log, id, '+', 'COUNT', 1)[1]
      if entry then
        bytes, count = bytes + size_of(entry), count + 1
      end
    end
  end
  return math.ceil(bytes / count)
end

-- Where the page starts, inclusive; nil where it is empty. A summary looks only at the cursor.
local first
if start == 'after' then
  first = ARGV[2]
elseif start == 'all' then
  first = newest and '-'
elseif newest and limit > 0 then
  -- A newcomer to an ended stream gets the end, whatever it asked to be replayed.
  local wanted = tonumber(ARGV[2])
  if ended then
    first = newest.id
  end
  if wanted > 0 then
    walk_back(log, state.length, function(entry)
      local found = publication(entry)
      if found and found.kind == 'event' then
        first = found.id
        wanted = wanted - 1
        return wanted == 0 or nil
      end
    end)
  end
end

local at_cursor, page, length, bytes, complete, size = {}, {}, 0, 0, 1, 0
local run, last
local up_to = is_ahead and newest and newest.id or '+'
local from = first
while from and state.newest do
  -- One more than fits, for the cursor's own entry.
  local count = math.min(PAGE, limit - length + 1)
  local entries = redis.call('XRANGE', log, from, up_to, 'COUNT', count)
  for _, entry in ipairs(entries) do
    local found = publication(entry)
    if start == 'after' and entry[1] == first then
      at_cursor = {found and found.tag or '0', found and found.kind or ''}
    elseif length == limit or (length > 0 and bytes >= most_bytes) then
      complete = 0
      size = limit == 0 and mean_size(entry) or 0
      break
    else
      if not (found and last and follows(found, last)) then
        run = {found and found.previous or entry[1]}
        page[#page + 1] = run
      end
      if found then
        run[#run + 1] = found.frame
        bytes = bytes + #found.frame
      end
      length = length + 1
      last = found
    end
  end
  if complete == 0 or #entries < count then
    break
  end
  from = '(' .. entries[#entries][1]
end

return {
  string.format('%.0f', clock()),
  redis.call('PTTL', log),
  state.length,
  state.generated or '',
  summary(state.newest),
  ended and 1 or 0,
  summary(state.oldest),
  at_cursor,
  complete,
  page,
  size,
}

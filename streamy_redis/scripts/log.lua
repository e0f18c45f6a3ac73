-- What publish.lua and read.lua know of a log; put in front of each.
--
-- An entry of ours has the fields frame, nonce, kind (event or end) and previous (the tag of the
-- entry before it, 0 if there is none of ours), and its frame is one whole block that ends with its
-- own id, as Publication.parse has it. Anything else is foreign: it keeps its place and is skipped.

local PAGE = 100
-- The least microsecond clock of 16 digits. A smaller epoch is none of ours: XADD * makes those.
local LEAST_EPOCH = 1000000000000000
-- The largest number that Lua counts on from exactly. What is behind it is none of ours either.
local LARGEST = 9007199254740991
-- Microseconds that a life of ours can be ahead of the server's clock: servers that take over from
-- one another differ by less. Only XADD by somebody else makes an id that is further ahead.
local FURTHEST_AHEAD = 24 * 3600 * 1000000
-- Bytes of the longest id line, the line end before it and the blank line behind it.
local LONGEST_TAIL = 49
-- The seq that stays empty in a life that begins because a failover lost something, so that there is
-- a hole for those who stand before it: whole lives may be lost, and who has seen nothing of them has
-- nothing else to compare.
local LOST = 1
-- What a frame begins with, by its first six bytes.
local FIRST_LINES = {['data: '] = true, ['event:'] = true, ['retry:'] = true}

-- The publication in an entry {id, {field, value, ...}}, or nil if it is foreign.
local function publication(entry)
  local fields = entry[2]
  if #fields ~= 8 or fields[1] ~= 'frame' or fields[3] ~= 'nonce' or fields[5] ~= 'kind'
      or fields[7] ~= 'previous' then
    return nil
  end
  local frame, previous = fields[2], fields[8]
  local id, epoch, seq, tag = string.match(
    string.sub(frame, -LONGEST_TAIL),
    '\nid: (([1-9]%d*)%-([1-9]%d*))%-(%x%x%x%x%x%x%x%x)\n\n$'
  )
  if id ~= entry[1] or tonumber(epoch) > LARGEST or tonumber(seq) > LARGEST
      or string.find(tag, '%u') or not FIRST_LINES[string.sub(frame, 1, 6)]
      or string.find(frame, '\n\n', 1, true) ~= #frame - 1 or string.find(frame, '\r', 1, true)
      or not (previous == '0' or string.match(previous, '^%x%x%x%x%x%x%x%x$')) then
    return nil
  end
  return {
    id = id, epoch = epoch, seq = tonumber(seq), tag = tag, frame = frame, nonce = fields[4],
    kind = fields[6], previous = previous, entry = entry,
  }
end

-- Whether a publication stands right behind another one, with which nothing ends.
local function follows(found, other)
  return found.epoch == other.epoch and found.seq == other.seq + 1 and other.kind ~= 'end'
end

-- {generated = last id ever, length, newest, oldest = entries, groups = their number}; empty where
-- there is no key.
local function describe(log)
  local state = {length = 0}
  if redis.call('EXISTS', log) == 0 then
    return state
  end
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    local name = info[i]
    if name == 'length' then
      state.length = info[i + 1]
    elseif name == 'groups' then
      state.groups = info[i + 1]
    elseif name == 'last-generated-id' then
      state.generated = info[i + 1]
    elseif name == 'first-entry' then
      state.oldest = info[i + 1] or nil
    elseif name == 'last-entry' then
      state.newest = info[i + 1] or nil
    end
  end
  return state
end

-- Calls visit(entry) from the newest entry back, until it returns a value, or limit is reached, or
-- oldest, where that is given.
local function walk_back(log, limit, visit, oldest)
  local from = '+'
  while limit > 0 do
    local count = math.min(PAGE, limit)
    local entries = redis.call('XREVRANGE', log, from, oldest or '-', 'COUNT', count)
    for _, entry in ipairs(entries) do
      local found = visit(entry)
      if found ~= nil then
        return found
      end
    end
    if #entries < count then
      return nil
    end
    limit = limit - count
    from = '(' .. entries[#entries][1]
  end
end

-- The newest publication: nearly always the newest entry; foreign ones are stepped over.
local function newest_publication(log, state)
  if not state.newest then
    return nil
  end
  return publication(state.newest) or walk_back(log, state.length, publication)
end

-- Microseconds of the server's clock; below 2^53 until the year 2255.
local function clock()
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000000 + tonumber(now[2])
end

-- The epoch and the seq of an entry id, as numbers.
local function numbers(id)
  local epoch, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(epoch), tonumber(seq)
end

-- Takes for the end of the log its newest publication, where a foreign entry stands behind it, or
-- stood, at a place that no clock can have come to: nobody's cursor goes there, and no life begins
-- there. Says whether it is so: then XADD can't go on in this log.
local function leave_out_what_is_ahead(state, newest)
  if not state.generated or (newest and newest.id == state.generated) then
    return false
  end
  local epoch, seq = numbers(state.generated)
  local furthest = math.max(clock() + FURTHEST_AHEAD, newest and tonumber(newest.epoch) or 0)
  if epoch <= furthest and seq < LARGEST then
    return false
  end
  if newest then
    state.generated, state.newest = newest.id, newest.entry
  else
    state.generated, state.newest, state.oldest, state.length, state.groups = nil, nil, nil, 0, 0
  end
  return true
end

-- Whether a reader has given the log up for another life: no publication ever had the seq 0.
local function is_given_up(state)
  if not state.generated then
    return false
  end
  local epoch, seq = numbers(state.generated)
  return seq == 0 and epoch >= LEAST_EPOCH
end

-- The epoch at which another life of the stream can begin, later than all that is known of it.
local function next_epoch(state, witness)
  local generated = state.generated and numbers(state.generated) or 0
  local known = tonumber(string.match(witness, '^%d+')) or 0
  return math.max(clock(), generated + 1, known + 1)
end

-- Whether the log doesn't hold a publication that a server acknowledged, and can't have been
-- trimmed of it: this server took over and never got it. Costs one XRANGE at the most.
local function has_lost(log, state, newest, witness)
  local id, tag = string.match(witness, '^(%d+%-%d+)%-(%x+)$')
  if not id or not state.generated then
    return false
  end
  local epoch, seq = numbers(id)
  local last_epoch, last_seq = numbers(state.generated)
  if epoch ~= last_epoch or seq > last_seq then
    -- Newer than all that was ever there; an older life was given up by somebody who knew.
    return epoch > last_epoch and last_epoch >= LEAST_EPOCH or epoch == last_epoch
  end
  if newest and newest.id == id then
    return newest.tag ~= tag
  end
  -- Where it was trimmed, the entry right behind it remembers its tag.
  local entry = redis.call('XRANGE', log, id, '+', 'COUNT', 1)[1]
  local found = entry and publication(entry)
  if entry and entry[1] == id then
    return not found or found.tag ~= tag
  end
  return found ~= nil and found.seq == seq + 1 and tonumber(found.epoch) == epoch
      and found.previous ~= tag
end

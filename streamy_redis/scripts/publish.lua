-- Appends publications to a stream and publishes them: all or none, contiguous, in order.
--
-- KEYS[1]  the log. The channel is named after it, and is no key: where a slot of a cluster
--          migrates, a script of two keys of which one doesn't exist is refused (TRYAGAIN).
-- ARGV[1]  kind: event, or end (always one publication)
-- ARGV[2]  history_length: entries to keep; 0 publishes events without storing them
-- ARGV[3]  milliseconds that the log lives from now on
-- ARGV[4]  1 to look for a repeat among the newest history_length entries first, else 0
-- ARGV[5]  the witness: what the sender knows the log to hold, <epoch>-<seq>-<tag>, or ''. A log that
--          doesn't gets a new life.
-- ARGV[6…] for each publication: its block, its nonce, its tag
--
-- A message is the frame. One in sixteen, by chance, has a comment behind it that says when it was
-- sent, in microseconds of the server's clock, for those who measure how long events take.
--
-- Reply: {status, position}, position being <epoch>-<seq> of the last publication:
--   published  stored and published now; without history the position is empty
--   repeated   the same nonce stands there already
--   ended      refused: the stream had ended at that position

local log = KEYS[1]
local channel = string.sub(log, 1, -#':log' - 1)
local kind = ARGV[1]
local history_length = tonumber(ARGV[2])
local witness = ARGV[5]
local last_nonce = ARGV[#ARGV - 1]
local FIRST = 6

local function message(frame, tag)
  if string.sub(tag, -1) == '0' then
    return frame .. string.format(':%.0f\n', clock())
  end
  return frame
end

local state = describe(log)
local newest = newest_publication(log, state)

if ARGV[4] == '1' and newest then
  local repeated = walk_back(log, history_length, function(entry)
    local found = publication(entry)
    return found and found.nonce == last_nonce and found.id or nil
  end)
  if repeated then
    return {'repeated', repeated}
  end
end

if newest and newest.kind == 'end' then
  return {newest.nonce == last_nonce and 'repeated' or 'ended', newest.id}
end

if kind == 'event' and history_length == 0 then
  for i = FIRST, #ARGV, 3 do
    redis.call('PUBLISH', channel, message(ARGV[i] .. ':\n\n', ARGV[i + 2]))
  end
  return {'published', ''}
end

-- The next position. A new life begins where XADD can't go on from the newest entry, and where what
-- it would go on from isn't what the sender knows.
local epoch, seq, previous = nil, 0, '0'
local is_lost = has_lost(log, state, newest, witness)
if is_given_up(state) and not is_lost then
  epoch, seq = numbers(state.generated)
  seq = LOST
elseif state.newest and state.newest[1] == state.generated and not is_lost then
  epoch, seq = numbers(state.generated)
  if newest and newest.id == state.generated then
    previous = newest.tag
  end
end
if not epoch or epoch < LEAST_EPOCH then
  epoch, seq = next_epoch(state, witness), is_lost and LOST or 0
end

local messages = {}
local position
for i = FIRST, #ARGV, 3 do
  local block, nonce, tag = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  seq = seq + 1
  -- tostring() would round a number of 16 digits.
  position = string.format('%.0f-%.0f', epoch, seq)
  local frame = block .. 'id: ' .. position .. '-' .. tag .. '\n\n'
  local fields = {position, 'frame', frame, 'nonce', nonce, 'kind', kind, 'previous', previous}
  if kind == 'event' and i + 2 == #ARGV then
    redis.call('XADD', log, 'MAXLEN', history_length, unpack(fields))
  else
    redis.call('XADD', log, unpack(fields))
  end
  messages[#messages + 1] = message(frame, tag)
  previous = tag
end
redis.call('PEXPIRE', log, ARGV[3])
for _, each in ipairs(messages) do
  redis.call('PUBLISH', channel, each)
end
return {'published', position}

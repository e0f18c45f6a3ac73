-- Appends publications to a stream and publishes them: all or none, contiguous, in order.
--
-- KEYS[1]  the log. The channel is named after it, and is no key: where a slot of a cluster
--          migrates, a script of two keys of which one doesn't exist is refused (TRYAGAIN).
-- ARGV[1]  kind: event, or end (always one publication)
-- ARGV[2]  history_length: entries to keep; 0 publishes events without storing them
-- ARGV[3]  milliseconds that the log lives from now on
-- ARGV[4]  where a repeat may stand: index; <epoch>-<seq>, behind it, among the newest history_length
--          entries; or '', nowhere
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
--
-- The index finds an idempotency key that a caller chose in constant time, however long the history
-- is. It is a consumer group of the log, in which the last entry of each send with such a key is
-- pending, and the consumer is its nonce. That is no use that Redis thought of, but it is one key:
-- the index comes into being with the log, expires, is evicted, deleted, replicated and moved to
-- another node with it, so that neither knows of something that the other has lost; and no script
-- has a second key, which a slot that migrates refuses. What isn't in the index isn't in the log.
-- What is has to be there still, since trimming tells it nothing: each send with a key removes up to
-- two that were trimmed, so there is never more than one beyond history_length. A drawn key is not in
-- it: 250 bytes are too much for each event. It is looked for behind what its sender knew then.

local log = KEYS[1]
local channel = string.sub(log, 1, -#':log' - 1)
local kind = ARGV[1]
local history_length = tonumber(ARGV[2])
local search = ARGV[4]
local witness = ARGV[5]
local last_nonce = ARGV[#ARGV - 1]
local FIRST = 6
local INDEX = 'idempotency keys'
-- Bytes of frames that are written anew at the most, where the log has to be.
local MOST_ANEW = 64 * 1024 * 1024

local function message(frame, tag)
  if string.sub(tag, -1) == '0' then
    return frame .. string.format(':%.0f\n', clock())
  end
  return frame
end

local state = describe(log)
local newest = newest_publication(log, state)
local is_ahead = leave_out_what_is_ahead(state, newest)

-- The id of the same publication, if it is found where it may stand.
local function repeated()
  local function same(entry)
    local found = publication(entry)
    return found and found.nonce == last_nonce and found.id or nil
  end

  if search ~= 'index' then
    return newest and walk_back(log, history_length, same, '(' .. search)
  end
  if (state.groups or 0) == 0 then
    return nil
  end
  local command = {'XPENDING', log, INDEX, '-', '+', 1, last_nonce}
  local pending = redis.pcall(unpack(command))
  if pending.err then
    if string.find(pending.err, '^NOGROUP') then
      -- The group that there is belongs to somebody else.
      redis.call('XGROUP', 'CREATE', log, INDEX, '0')
    end
    pending = redis.call(unpack(command))
  end
  if not pending[1] then
    return nil
  end
  local id = pending[1][1]
  local entry = redis.call('XREVRANGE', log, id, id)[1]
  local found = entry and same(entry)
  if not found then
    -- It was trimmed. A nonce stands for one entry only.
    redis.call('XGROUP', 'DELCONSUMER', log, INDEX, last_nonce)
  end
  return found
end

-- Makes the log anew of the publications in it, where somebody's entry stands, or stood, so far ahead
-- that nothing of ours can be behind it: Redis takes no id back that it has generated.
local function write_anew()
  local kept, bytes = {}, 0
  walk_back(log, state.length, function(entry)
    local found = publication(entry)
    if found then
      kept[#kept + 1] = found
      bytes = bytes + #found.frame
    end
    return bytes > MOST_ANEW or nil
  end)
  -- A script that has written once may go on, also where there is no memory left.
  redis.call('UNLINK', log)
  if #kept == 0 then
    return
  end
  for i = #kept, 1, -1 do
    redis.call('XADD', log, kept[i].id, unpack(kept[i].entry[2]))
  end
  if state.groups > 0 then
    redis.call('XGROUP', 'CREATE', log, INDEX, '0')
    for _, found in ipairs(kept) do
      redis.call('XCLAIM', log, INDEX, found.nonce, 0, found.id, 'FORCE', 'JUSTID')
    end
  end
end

local found = search ~= '' and repeated()
if found then
  return {'repeated', found}
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

if is_ahead then
  write_anew()
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
if search == 'index' then
  if (state.groups or 0) == 0 then
    redis.call('XGROUP', 'CREATE', log, INDEX, '0')
  end
  redis.call('XCLAIM', log, INDEX, last_nonce, 0, position, 'FORCE', 'JUSTID')
  local oldest = state.oldest and state.oldest[1] or position
  for _, trimmed in ipairs(redis.call('XPENDING', log, INDEX, '-', '(' .. oldest, 2)) do
    redis.call('XGROUP', 'DELCONSUMER', log, INDEX, trimmed[2])
  end
end
for _, each in ipairs(messages) do
  redis.call('PUBLISH', channel, each)
end
return {'published', position}

"""What runs inside Redis, each script one step: nobody comes between a check and its claim. Times are Redis's own, in milliseconds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
class Script:
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # EVALSHA names a script by its SHA-1: an identifier, not a protection.
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class Call(NamedTuple):
    script: Script
    keys: tuple[str, ...]
    args: tuple[str | int | float, ...]


SPEND: Final = Script("""
-- Spends of all windows or of none. The counters are those of the limits library's sliding window, which needs a round trip for each window
-- and another one for its reading: two keys, the current one living for two windows, so that its time to live tells when it becomes the previous one.
-- KEYS: current and previous of each window; ARGV: amount, window, cost of each.
-- Returns the number of the first window without room or 0, then previous, current, time to live of each, before spending.
local reply, refused = {0}, 0
for i = 1, #KEYS / 2 do
    local current_key, previous_key = KEYS[2 * i - 1], KEYS[2 * i]
    local amount, window, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local ttl = redis.call('PTTL', current_key)
    if ttl >= 0 and ttl < window then
        redis.call('RENAME', current_key, previous_key)
        redis.call('SET', current_key, 0, 'PX', ttl + window)
        ttl = ttl + window
    end
    local current = tonumber(redis.call('GET', current_key)) or 0
    local previous = tonumber(redis.call('GET', previous_key)) or 0
    local share = math.max(0, redis.call('PTTL', previous_key)) / window
    if refused == 0 and math.floor(previous * share) + current + cost > amount then
        refused = i
    end
    reply[3 * i - 1], reply[3 * i], reply[3 * i + 1] = previous, current, ttl
end
if refused == 0 then
    for i = 1, #KEYS / 2 do
        local cost = tonumber(ARGV[3 * i])
        if cost > 0 then
            if reply[3 * i + 1] > 0 then
                redis.call('INCRBY', KEYS[2 * i - 1], cost)
            else
                redis.call('SET', KEYS[2 * i - 1], cost, 'PX', 2 * tonumber(ARGV[3 * i - 1]))
            end
        end
    end
end
reply[1] = refused
return reply
""")

RAISE_WINDOW: Final = Script("""
-- Lifts one window to what a gate has counted by itself. KEYS: current, previous; ARGV: window, time to the window's end, current, previous.
local window, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local ttl = redis.call('PTTL', KEYS[1])
if ttl >= 0 and ttl < window then
    redis.call('RENAME', KEYS[1], KEYS[2])
    redis.call('SET', KEYS[1], 0, 'PX', ttl + window)
end
local current = tonumber(redis.call('GET', KEYS[1])) or 0
local previous = tonumber(redis.call('GET', KEYS[2])) or 0
if ttl < 0 then
    redis.call('SET', KEYS[1], ARGV[3], 'PX', window + left)
elseif current < tonumber(ARGV[3]) then
    redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
end
if previous < tonumber(ARGV[4]) and left > 0 then
    redis.call('SET', KEYS[2], ARGV[4], 'PX', left)
end
return 1
""")

CLAIM: Final = Script("""
-- Takes one slot in every set or in none. Claims are members of a sorted set, scored by the end of their lease: a dead gate's claims end by themselves.
-- KEYS: the sets; ARGV: token, lease, then the size of each. Returns the number of the first full set or 0.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if not redis.call('ZSCORE', key, ARGV[1]) and redis.call('ZCARD', key) >= tonumber(ARGV[2 + i]) then
        return i
    end
end
for _, key in ipairs(KEYS) do
    redis.call('ZADD', key, now + tonumber(ARGV[2]), ARGV[1])
    redis.call('PEXPIRE', key, 2 * tonumber(ARGV[2]))
end
return 0
""")

RENEW: Final = Script("""
-- Holds claims for another lease, and makes those that are missing. KEYS: one set; ARGV: lease, tokens.
local time = redis.call('TIME')
local till = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], till, ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], 2 * tonumber(ARGV[1]))
return #ARGV - 1
""")

FREE: Final = Script("""
-- KEYS: the sets; ARGV: token.
for _, key in ipairs(KEYS) do
    redis.call('ZREM', key, ARGV[1])
end
return 0
""")

CHARGE: Final = Script("""
-- Counts a job once. KEYS: the job's mark, totals; ARGV: seconds, the mark's time to live, the time to live of each total.
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[2]) then
    return 0
end
for i = 2, #KEYS do
    redis.call('INCRBYFLOAT', KEYS[i], ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[1 + i])
end
return 1
""")

TOTALS: Final = Script("""
-- KEYS: totals.
return redis.call('MGET', unpack(KEYS))
""")

RAISE_TOTAL: Final = Script("""
-- Lifts a total to what a gate has in its own file. KEYS: the total; ARGV: seconds, time to live.
if (tonumber(redis.call('GET', KEYS[1])) or 0) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
""")

ALL: Final = (SPEND, RAISE_WINDOW, CLAIM, RENEW, FREE, CHARGE, TOTALS, RAISE_TOTAL)

#!/usr/bin/env bash
# finding: limits' sliding window follows the clock when it is kept in memory and the first hit when it is kept in Redis, so the same hits have other answers
# about: limits (MemoryStorage, RedisStorage), fakeredis
# guess: a storage is where the counters are kept; it does not change what the strategy answers
# concerns: whoever tests a limit in memory and runs it with Redis: the one lets hits through soon after a full window, and the other none until its window is over; the time of the reset differs as well
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check limits==5.8.0 redis==8.1.0 fakeredis==2.41.0 lupa==2.8

"$python" - <<'PROGRAM'
import time
from importlib.metadata import version

import fakeredis
import redis
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

WINDOW = 10
BUDGET = RateLimitItemPerSecond(4, WINDOW)
pool = redis.ConnectionPool(connection_class=fakeredis.FakeConnection, server=fakeredis.FakeServer())
limiters = {
    "memory": SlidingWindowCounterRateLimiter(MemoryStorage()),
    "Redis": SlidingWindowCounterRateLimiter(RedisStorage("redis://127.0.0.1", connection_pool=pool)),
}


def wait_for(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def hits(count: int) -> dict[str, list[bool]]:
    return {name: [limiter.hit(BUDGET, "tenant") for _ in range(count)] for name, limiter in limiters.items()}


turn = (time.time() // WINDOW + 1) * WINDOW  # the next moment at which the clock begins a window of its own
if turn - time.time() < 3:
    turn += WINDOW
wait_for(turn - 2)
full = hits(5)
wait_for(turn + 4)
later = hits(1)
resets = {name: limiter.get_window_stats(BUDGET, "tenant").reset_time - turn for name, limiter in limiters.items()}
print("limits", version("limits"), "fakeredis", version("fakeredis"))
print(f"guess: {BUDGET}: four hits pass, the fifth does not, and 6 s later both storages give one answer")
for name in limiters:
    print(f"seen:  {name}: {full[name]}, then {later[name]}; the reset is {resets[name]:.1f} s after the turn")
assert full["memory"] == full["Redis"] == [True] * 4 + [False]
assert later == {"memory": [True], "Redis": [False]}
assert resets["Redis"] - resets["memory"] > 1
PROGRAM

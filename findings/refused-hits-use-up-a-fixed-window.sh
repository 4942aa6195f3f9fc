#!/usr/bin/env bash
# finding: with limits' fixed window a hit that is refused is charged all the same; the moving window charges only what it lets through
# about: limits
# guess: strategies differ in when the window begins, and what is refused costs nothing in any of them
# concerns: whoever gives jobs a cost (pictures of a batch, megapixels): one job that is too large to be allowed at all shuts out all small ones for the rest of the window
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check limits==5.8.0

"$python" - <<'PROGRAM'
from importlib.metadata import version

from limits import RateLimitItemPerHour
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

BUDGET = RateLimitItemPerHour(10)
COSTS = (3, 50, 1)  # a small job, one that no window has room for, and the smallest
seen = {}
for strategy in (FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter):
    limiter = strategy(MemoryStorage())
    answers = [limiter.hit(BUDGET, "tenant", cost=cost) for cost in COSTS]
    seen[strategy.__name__] = answers, limiter.get_window_stats(BUDGET, "tenant").remaining
print("limits", version("limits"))
print(f"guess: costs {COSTS} of {BUDGET.amount} are [True, False, True] for each of them, and 6 remain")
for name, (answers, remaining) in seen.items():
    print(f"seen:  {name}: {answers}, {remaining} remain")
assert seen["FixedWindowRateLimiter"] == ([True, False, False], 0)
assert seen["MovingWindowRateLimiter"] == ([True, False, True], 6)
assert seen["SlidingWindowCounterRateLimiter"] == ([True, False, True], 6)
PROGRAM

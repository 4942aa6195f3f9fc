#!/usr/bin/env bash
# finding: throttled's token bucket, its default, refuses a client that sends 8 requests a minute where 10 are allowed, for at each request it drops the part of a token that has come since the last one; its GCRA refuses none
# about: throttled-py
# guess: a bucket of 10 that is filled with 10 a minute never empties for whoever takes 8
# concerns: limits of few requests a minute, as for jobs on a GPU: what counts is not how much a client sends but in which rhythm; evenly spread or all at once is let through, two at a time with 5 seconds between them is not, and the longer it runs the more is refused
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check throttled-py==3.5.0

"$python" - <<'PROGRAM'
from importlib.metadata import version
from itertools import cycle
from unittest import mock

from throttled import MemoryStore, Throttled, rate_limiter

MINUTES = 30
RHYTHMS = {"7.5 s": [7.5], "5 s, 10 s": [5, 10], "1 s, 1 s, 1 s, 27 s": [1, 1, 1, 27]}


def refused(using: str, gaps: list[float]) -> int:
    """How many of the requests are refused, by a clock that is moved by hand from one to the next."""
    now, begin, count = 1_800_000_000.0, 1_800_000_000.0, 0
    limit = Throttled(key="ada", using=using, quota=rate_limiter.per_min(10, burst=10), store=MemoryStore())
    for gap in cycle(gaps):
        with mock.patch("time.time", lambda: now), mock.patch("time.monotonic", lambda: now):
            count += limit.limit().limited
        now += gap
        if now >= begin + 60 * MINUTES:
            return count
    raise AssertionError


print("throttled-py", version("throttled-py"))
print(f"guess: of the {8 * MINUTES} requests of {MINUTES} minutes none is refused where 10 a minute are allowed")
seen = {}
for using in ("token_bucket", "gcra"):
    seen[using] = [refused(using, gaps) for gaps in RHYTHMS.values()]
    print(f"seen:  {using}:", ", ".join(f"{count} with gaps of {name}" for name, count in zip(RHYTHMS, seen[using])))
assert Throttled(key="ada", quota=rate_limiter.per_min(10)).limiter.Meta.type == "token_bucket"
assert seen["gcra"] == [0, 0, 0]
assert seen["token_bucket"][0] == seen["token_bucket"][2] == 0
assert seen["token_bucket"][1] == 56
PROGRAM

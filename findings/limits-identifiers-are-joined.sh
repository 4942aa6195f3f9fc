#!/usr/bin/env bash
# finding: identifiers of a rate limit are joined with "/", so different ones can share a counter
# about: limits
# guess: hit(limit, "a/b", "c") and hit(limit, "a", "b/c") count apart, since their arguments differ
# concerns: whoever counts by more than one name (model folder and file, user and path) has to make the names unambiguous first
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check limits==5.8.0

"$python" - <<'PROGRAM'
from importlib.metadata import version

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

limiter = FixedWindowRateLimiter(MemoryStorage())
once = parse("1/minute")
first = limiter.hit(once, "loras/style", "a.safetensors")
second = limiter.hit(once, "loras", "style/a.safetensors")
keys = {once.key_for("loras/style", "a.safetensors"), once.key_for("loras", "style/a.safetensors")}
print("limits", version("limits"))
print("guess: True True, two keys")
print(f"seen:  {first} {second}, {keys}")
assert (first, second) == (True, False)
assert len(keys) == 1
PROGRAM

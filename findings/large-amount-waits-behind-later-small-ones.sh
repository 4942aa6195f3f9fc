#!/usr/bin/env bash
# finding: with aiolimiter whoever waits for a large amount is passed by everyone who comes later and wants less, so a job that counts for much waits as long as small ones keep coming
# about: aiolimiter, AsyncLimiter.acquire(amount)
# guess: who waits is served in the order of arrival, as with the locks and semaphores of asyncio
# concerns: whoever weighs jobs (pictures of a batch, megapixels, tokens): under a steady load the batches are never run, and no error or warning tells; the waiters are a heap whose first value is the amount
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check aiolimiter==1.3.0

"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version

from aiolimiter import AsyncLimiter

NAMES = ["batch", *(f"small {number}" for number in range(1, 7))]


async def by_limiter() -> list[str]:
    limiter, served = AsyncLimiter(8, 0.8), []

    async def job(name: str) -> None:
        await limiter.acquire(4 if name == "batch" else 1)
        served.append(name)

    await limiter.acquire(8)  # the bucket is full, so all seven wait
    tasks = []
    for name in NAMES:
        tasks.append(asyncio.create_task(job(name)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return served


print("aiolimiter", version("aiolimiter"))
print("guess:", ", ".join(NAMES))
served = asyncio.run(by_limiter())
print("seen: ", ", ".join(served))
assert served == [*NAMES[1:], "batch"]
PROGRAM

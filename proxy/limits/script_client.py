"""Redis itself: scripts of one moment in one round trip. Knows nothing of what they mean, nor of what to do without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.limits.redis_scripts import ALL, Call

MAX_BATCH: Final = 512

# asyncio.timeout raises TimeoutError, which is an OSError. An answer that is an error (out of memory, read-only, loading) is a RedisError.
FAILURES: Final = (RedisError, OSError)


class ScriptClient:
    """`run` and `load` raise one of FAILURES."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """url: as redis-py reads it. Raises ValueError for a bad one."""
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=4,
        )
        self._timeout_s = timeout_s

    @property
    def address(self) -> str:
        """Host and port, without the password that the URL may hold."""
        kwargs = self._redis.connection_pool.connection_kwargs
        return str(kwargs.get("path") or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}")

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """One answer for each call; what Redis says of a single one stands in its place, an Exception."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def run_all(self, calls: Iterable[Call]) -> None:
        """Any number of calls whose answers nobody needs, each round trip within the time limit. Raises what Redis says of one."""
        waiting = iter(calls)
        while part := list(islice(waiting, MAX_BATCH)):
            async with asyncio.timeout(self._timeout_s):
                for answer in await self.run(part):
                    if isinstance(answer, Exception):
                        raise answer

    async def load(self) -> None:
        """Loads the scripts: a Redis that was started anew has none."""
        async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipeline:
            for script in ALL:
                pipeline.script_load(script.text)
            await pipeline.execute()

    async def drop_connections(self) -> None:
        """A connection on which an answer is still due must never be used again."""
        with contextlib.suppress(*FAILURES):
            await self._redis.connection_pool.disconnect(inuse_connections=True)

    async def close(self) -> None:
        with contextlib.suppress(*FAILURES):
            await self._redis.aclose()

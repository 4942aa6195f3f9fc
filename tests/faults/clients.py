"""Tenants' clients: they submit one job after the other, and take every answer that a gate gives whose neighbours die."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.faults.judge import Submission, Told
from tests.faults.programs import GUARD_S

RETRY_S = 0.05
UNCERTAIN_ANSWERS = 20
"""A gate that died while it submitted leaves it open for two minutes whether there is a job."""
OUTAGE = (502, 503, 504)
"""What a gate may answer while something behind it is down."""
_NO_ANSWER = 0


@dataclass
class Client:
    """Of one tenant. urls: of the gates, the first one first; a client whose gate is gone goes on with the next one. guard_s: for how long it asks."""

    tenant: str
    key: str
    urls: list[str]
    session: aiohttp.ClientSession
    guard_s: float = GUARD_S

    async def ask(
        self, method: str, path: str, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON; status 0 when no answer came."""
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        try:
            async with self.session.request(method, self.urls[0] + path, data=data, headers=sent) as answer:
                body = await answer.read()
                is_json = "json" in answer.headers.get("Content-Type", "")
                return answer.status, orjson.loads(body) if is_json and body else None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError):
            self.urls.append(self.urls.pop(0))
            return _NO_ANSWER, None

    async def submit(self, name: str, graph: Any, *, is_repeated: bool) -> Submission:
        """is_repeated: with an idempotency key, again and again until there is an answer, or nobody knows for a while; else once.

        AssertionError for an answer that no outage explains.
        """
        submission = Submission(self.tenant, name)
        document = orjson.dumps({"prompt": graph})
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": str(uuid.uuid4())} if is_repeated else {})
        async with asyncio.timeout(self.guard_s):
            while True:
                status, answer = await self.ask("POST", "/prompt", data=document, headers=headers)
                submission.answers.append(status)
                if status == 200:
                    submission.prompt_id = answer["prompt_id"]
                    return submission
                assert status in (_NO_ANSWER, *OUTAGE) or (is_repeated and status == 409), f"{name}: {status} {answer}"
                if not is_repeated or submission.answers.count(409) > UNCERTAIN_ANSWERS:
                    return submission
                await asyncio.sleep(RETRY_S)

    async def sure(self, method: str, path: str, **more: Any) -> Any:
        """The JSON of the answer 200, asked for until it comes."""
        async with asyncio.timeout(self.guard_s):
            while True:
                status, answer = await self.ask(method, path, **more)
                if status == 200:
                    return answer
                assert status in (_NO_ANSWER, *OUTAGE), f"{method} {path}: {status} {answer}"
                await asyncio.sleep(RETRY_S)

    async def queued(self) -> list[str]:
        queue = await self.sure("GET", "/queue")
        return [item[1] for item in (*queue["queue_running"], *queue["queue_pending"])]

    async def told(self) -> Told:
        history = await self.sure("GET", "/history")
        return Told({prompt_id: entry["status"]["status_str"] for prompt_id, entry in history.items()})

    async def is_idle(self) -> None:
        """Waits until nothing of this tenant waits or runs."""
        while await self.queued():
            await asyncio.sleep(RETRY_S)


@asynccontextmanager
async def clients(keys: dict[str, str], urls: Sequence[str], guard_s: float = GUARD_S) -> AsyncIterator[list[Client]]:
    timeout = aiohttp.ClientTimeout(total=guard_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield [Client(tenant, key, list(urls), session, guard_s) for tenant, key in keys.items()]

"""Asks a gate as a client of the API does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from multidict import CIMultiDictProxy

from tests.harness import AUDIT_FILE, Running
from tests.proxy.upstreams import GUARD_S

JOBS = "/api/v2/jobs"
JSON_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: CIMultiDictProxy[str]
    raw: bytes

    @property
    def code(self) -> str:
        """Of a refusal, in the API's envelope."""
        assert set(self.body) == {"error"}, self.body
        assert set(self.body["error"]) == {"code", "message", "details"}
        assert isinstance(self.body["error"]["details"], dict)
        code: str = self.body["error"]["code"]
        return code

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.code


async def ask(gate: Running, method: str, path: str, who: str | None = "alice", **more: Any) -> Answer:
    async with gate.call(method, path, who, **more) as response:
        raw = await response.read()
        return Answer(response.status, orjson.loads(raw) if raw else None, response.headers, raw)


async def submit(gate: Running, workflow: Any, who: str = "alice", key: str | None = None, **more: Any) -> Answer:
    """key: the Idempotency-Key."""
    headers = JSON_TYPE if key is None else {**JSON_TYPE, "Idempotency-Key": key}
    return await ask(gate, "POST", JOBS, who, data=orjson.dumps({"workflow": workflow, **more}), headers=headers)


async def submitted(gate: Running, workflow: Any, who: str = "alice", **more: Any) -> str:
    """The id of a job that was taken."""
    answer = await submit(gate, workflow, who, **more)
    assert answer.status == 201, answer.raw
    return str(answer.body["id"])


async def job(gate: Running, job_id: str, who: str = "alice") -> Any:
    answer = await ask(gate, "GET", f"{JOBS}/{job_id}", who)
    assert answer.status == 200, answer.raw
    return answer.body


async def until(gate: Running, job_id: str, *statuses: str, who: str = "alice") -> list[str]:
    """Waits for one of these; each status that was told on the way, once."""
    seen: list[str] = []
    async with asyncio.timeout(GUARD_S):
        while not seen or seen[-1] not in statuses:
            status = (await job(gate, job_id, who))["status"]
            if seen[-1:] != [status]:
                seen.append(status)
            await asyncio.sleep(0.01)
    return seen


async def cancel(gate: Running, job_id: str, who: str = "alice") -> Answer:
    return await ask(gate, "POST", f"{JOBS}/{job_id}/cancel", who)


async def listed(gate: Running, query: str = "", who: str = "alice") -> list[str]:
    answer = await ask(gate, "GET", f"{JOBS}{query}", who)
    assert answer.status == 200, answer.raw
    return [row["id"] for row in answer.body["jobs"]]


def audited(gate: Running, event: str = "submission") -> list[Any]:
    lines = (gate.config_file.parent / AUDIT_FILE).read_bytes().splitlines()
    return [entry for entry in map(orjson.loads, lines) if entry["event"] == event]

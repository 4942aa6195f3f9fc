"""Two gates that share one PostgreSQL are stopped and started again, one after the other, while clients go on that try a second time at most: with
sockets, streams of events, uploads and jobs. Before one ComfyUI, and before two with Redis besides."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import aiohttp
import orjson

from tests.faults.clients import Client
from tests.faults.judge import Case, Submission, judge
from tests.faults.programs import GUARD_S, NAP_S, GateProcess
from tests.faults.recording import CORE, CUSTOM, work
from tests.faults.rounds import Tally, causes
from tests.faults.world import World, open_world

ROLLING: Final = "rolling restart"
ROLLING_TWO: Final = "rolling restart before two"
COMFYUIS: Final = {ROLLING: 1, ROLLING_TWO: 2}
"""How many, by what is played."""
WEIGHTS: Final = {"ann": 1.0, "bob": 1.0, "cas": 2.0}
JOB_S: Final = 0.05
UPLOAD_PIECES: Final = 20
_JSON: Final = {"Content-Type": "application/json"}
_GONE: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
_AGAIN: Final = b'"upstream_busy"'
"""Of an answer that asks for the same again, on a busy machine: no restart is to blame for it."""
_ENDS: Final = frozenset({"succeeded", "failed", "canceled"})


@dataclass
class Caller:
    """A tenant's program. urls: of the gates; each call goes to one of them, and once more to the next one when it comes to nothing.

    failed: what came to nothing twice, in words. retried: how many calls were made twice.
    """

    client: Client
    urls: list[str]
    chance: random.Random
    failed: list[str] = field(default_factory=list)
    retried: int = 0
    submissions: list[Submission] = field(default_factory=list)

    @property
    def tenant(self) -> str:
        return self.client.tenant

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.client.key}"}

    async def call(
        self, method: str, path: str, make: Callable[[], bytes | AsyncIterator[bytes]], **headers: str
    ) -> Any:
        """The JSON of an answer that is none of a failure; None where there is none the second time either. make: the body, anew for each try."""
        told: list[str] = []
        urls = self._two()
        async with asyncio.timeout(GUARD_S):
            while urls:
                url = urls.pop(0)
                try:
                    async with self.client.session.request(
                        method, url + path, data=make(), headers=self.headers | headers
                    ) as answer:
                        body = await answer.read()
                        if answer.status < 300:
                            return orjson.loads(body)
                        told.append(f"{answer.status} {body[:200]!r}")
                        if _AGAIN in body:
                            urls = self._two()
                            continue
                except _GONE as error:
                    told.append(repr(error))
                self.retried += 1
        self.failed.append(f"{self.tenant}: {method} {path}: {told}")
        return None

    def _two(self) -> list[str]:
        urls = list(self.urls)
        self.chance.shuffle(urls)
        return urls

    # What it does, again and again.

    async def run_jobs(self, count: int) -> None:
        """One job after the other, each followed on a socket that comes back at the other gate when it is closed."""
        client_id = uuid.uuid4().hex
        async with Socket(self, client_id) as socket:
            for number in range(count):
                submission = Submission(self.tenant, f"{self.tenant}-socket-{number:03}")
                self.submissions.append(submission)
                graph = work(submission.name, JOB_S, self.chance.choice((CORE, CUSTOM)))
                document = orjson.dumps({"prompt": graph, "client_id": client_id})
                answer = await self.call(
                    "POST", "/prompt", partial(bytes, document), **_JSON, **{"Idempotency-Key": str(uuid.uuid4())}
                )
                if answer is not None:
                    submission.prompt_id = answer["prompt_id"]
                    submission.answers.append(200)
                    await socket.hears_the_end_of(answer["prompt_id"])

    async def follow_jobs(self, count: int) -> None:
        """Jobs of Comfy API v2, each followed as a stream of events to its end."""
        for number in range(count):
            submission = Submission(self.tenant, f"{self.tenant}-stream-{number:03}")
            self.submissions.append(submission)
            document = orjson.dumps({"workflow": work(submission.name, JOB_S, CUSTOM)})
            answer = await self.call(
                "POST", "/api/v2/jobs", partial(bytes, document), **_JSON, **{"Idempotency-Key": str(uuid.uuid4())}
            )
            if answer is not None:
                submission.prompt_id = answer["id"]
                submission.answers.append(200)
                await self._follow(f"/api/v2/jobs/{answer['id']}/events")

    async def _follow(self, path: str) -> None:
        urls = self._two()
        async with asyncio.timeout(GUARD_S):
            while not await self._is_followed_to_its_end(urls[0] + path):
                urls.reverse()
                await asyncio.sleep(NAP_S)

    async def _is_followed_to_its_end(self, url: str) -> bool:
        try:
            async with self.client.session.get(url, headers=self.headers) as answer:
                if answer.status != 200:
                    return False
                async for line in answer.content:
                    name, _, text = line.decode().partition(": ")
                    if name == "data" and orjson.loads(text).get("status") in _ENDS:
                        return True
        except _GONE:
            pass
        return False

    async def upload_until(self, is_over: asyncio.Event) -> None:
        """Slowly, so that a gate is stopped in the middle of one."""
        number = 0
        while not is_over.is_set():
            number += 1
            name = f"{number:04}.png"
            boundary = uuid.uuid4().hex
            answer = await self.call(
                "POST",
                "/upload/image",
                partial(_form, name, boundary),
                **{"Content-Type": f"multipart/form-data; boundary={boundary}"},
            )
            if answer is not None and answer["name"] != name:
                # Its first try has come through, though its client did not hear so.
                assert self.retried, answer


async def _form(name: str, boundary: str) -> AsyncIterator[bytes]:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    yield head.encode() + b"\x89PNG\r\n\x1a\n"
    for _ in range(UPLOAD_PIECES):
        await asyncio.sleep(NAP_S)
        yield bytes(4096)
    yield f"\r\n--{boundary}--\r\n".encode()


class Socket:
    """A client's WebSocket, which comes back with its id when it is closed. sessions: how often it was opened."""

    def __init__(self, caller: Caller, client_id: str) -> None:
        self._caller = caller
        self._client_id = client_id
        self._ends: set[str] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.sessions = 0

    async def __aenter__(self) -> Socket:
        self._task = asyncio.get_running_loop().create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def hears_the_end_of(self, prompt_id: str) -> None:
        """TimeoutError."""
        async with asyncio.timeout(GUARD_S):
            while prompt_id not in self._ends:
                self._news.clear()
                await self._news.wait()

    async def _listen(self) -> None:
        urls = list(self._caller.urls)
        while True:
            try:
                await self._hear(f"{urls[0]}/ws?clientId={self._client_id}")
            except (*_GONE, aiohttp.WSServerHandshakeError):
                pass
            urls.reverse()
            await asyncio.sleep(NAP_S)

    async def _hear(self, url: str) -> None:
        async with self._caller.client.session.ws_connect(url, headers=self._caller.headers) as socket:
            self.sessions += 1
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                event = orjson.loads(message.data)
                if event["type"] == "execution_success":
                    self._ends.add(event["data"]["prompt_id"])
                    self._news.set()


async def play(fault: str, jobs: int, seed: int, *, comfyui: str = "") -> Tally:
    """fault: of `COMFYUIS`. jobs: of each tenant, by each of two ways. comfyui: see `ComfyUI.real`."""
    tally, count = Tally(fault, seed, rounds=1), COMFYUIS[fault]
    async with open_world(
        WEIGHTS, gates=2, comfyuis=count, is_shared=True, has_redis=count > 1, comfyui=comfyui
    ) as world:
        urls = [gate.url for gate in world.gates]
        callers = [Caller(client, urls, random.Random(f"{seed} {client.tenant}")) for client in world.clients]
        try:
            async with asyncio.timeout(4 * GUARD_S + jobs):
                await _restart_all(world, callers, jobs)
                told = {client.tenant: await client.told() for client in world.clients}
        except (TimeoutError, ExceptionGroup) as error:
            tally.wrong.append(f"it comes to no end: {causes(error)}")
            tally.counts["stuck"] += 1
        else:
            submissions = [each for caller in callers for each in caller.submissions]
            verdict = judge(Case(submissions, world.record.lines(), {}, told, is_ordered=False))
            tally.counts, tally.wrong = verdict.counts, verdict.wrong
            tally.counts["retried"] += sum(caller.retried for caller in callers)
        tally.wrong += [each for caller in callers for each in caller.failed]
        if tally.wrong:
            tally.wrong.append(world.last_words())
    return tally


async def _restart_all(world: World, callers: list[Caller], jobs: int) -> None:
    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.upload_until(is_over))
        async with _ended(is_over), asyncio.TaskGroup() as working:
            for caller in callers:
                working.create_task(caller.run_jobs(jobs))
                working.create_task(caller.follow_jobs(jobs))
            total = 2 * jobs * len(callers)
            for number, gate in enumerate(world.gates, 1):
                await _restart(world, gate, number * total // (len(world.gates) + 1))


@asynccontextmanager
async def _ended(event: asyncio.Event) -> AsyncIterator[None]:
    try:
        yield
    finally:
        event.set()


async def _restart(world: World, gate: GateProcess, begun: int) -> None:
    while world.record.begun() < begun:
        world.check()
        await asyncio.sleep(NAP_S)
    assert await gate.stop() == 0, gate.last_words()
    await gate.start()
    await gate.is_up()

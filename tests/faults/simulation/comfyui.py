"""A ComfyUI in the event loop, as the gate's `Upstream`: it accepts, runs, ends, forgets all when it is restarted, answers late, not at all, or refuses."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from policy.call import UpstreamCall, UpstreamReply
from policy.rules.prompt import LAST_PLACE
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from proxy.http.websocket import Close, Receiver
from tests.faults.recording import Line
from tests.faults.simulation.loop import now_s

LATENCY_S = 0.002
SLOW_S = 5.0
_STATUS = '{"type": "status", "data": {}}'


@dataclass(frozen=True)
class Moods:
    """How likely each oddity of an answer is. lost: done, and the connection breaks. unheard: it breaks before anything was done. silent: done or
    not, and no answer within the time limit."""

    late: float = 0.0
    lost: float = 0.0
    unheard: float = 0.0
    silent: float = 0.0
    busy: float = 0.0


class Socket:
    def __init__(self, leave: Callable[[Socket], None]) -> None:
        self._leave = leave
        self._receiver: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def tell(self, text: str) -> None:
        if self._receiver is not None:
            self._receiver.received(text, None)

    def break_off(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.ended(Close(1006, ""), is_said=False)

    def close(self, close: Close) -> None:
        self._receiver = None
        self._leave(self)


@dataclass
class Life:
    """What a restart loses. queue: (number, arrival, item)."""

    number: int
    queue: list[tuple[float, int, list[Any]]] = field(default_factory=list)
    running: list[Any] | None = None
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)
    history: dict[str, Any] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    arrivals: int = 0


class SimulatedComfyUI:
    """lines: what it did, of all lives. deaths: when each life was ended. known: the ids that it had then, ended ones too.

    tried: ids of those that ran although they were only to be tried.
    """

    url = "http://comfyui.test"

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.moods = Moods()
        self.lines: list[Line] = []
        self.deaths: dict[int, float] = {}
        self.known: dict[int, set[str]] = {}
        self.freed = 0
        self.tried: set[str] = set()
        self._life: Life | None = None
        self._lives = 0
        self._worker: asyncio.Task[None] | None = None
        self._sockets: list[Socket] = []

    @property
    def is_up(self) -> bool:
        return self._life is not None

    @property
    def given(self) -> list[tuple[float, str]]:
        """Numbers and ids of the jobs that it has: the one that runs, and those that wait."""
        return [] if self._life is None else [(item[0], item[1]) for item in self._items(self._life)]

    def _items(self, life: Life) -> list[list[Any]]:
        return ([] if life.running is None else [life.running]) + [item for *_, item in life.queue]

    def start(self) -> None:
        self._lives += 1
        self._life = Life(self._lives)
        self._worker = asyncio.ensure_future(self._work(self._life))

    async def kill(self) -> None:
        life, self._life = self._life, None
        worker, self._worker = self._worker, None
        if life is None or worker is None:
            return
        self.deaths[life.number] = now_s()
        self.known[life.number] = {item[1] for item in self._items(life)} | set(life.history)
        worker.cancel()
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.break_off()
        await asyncio.sleep(0)

    def _announce(self) -> None:
        for socket in self._sockets:
            socket.tell(_STATUS)

    async def _work(self, life: Life) -> None:
        while True:
            while not life.queue:
                life.arrived.clear()
                await life.arrived.wait()
            item = heapq.heappop(life.queue)[-1]
            life.running = item
            life.interrupted.clear()
            self._announce()
            self._write("begin", item, life)
            if item[0] >= LAST_PLACE:
                self.tried.add(item[1])
            seconds = _read(item)[1]
            status = "success"
            try:
                async with asyncio.timeout(seconds):
                    await life.interrupted.wait()
                status = "error"
                self._write("stopped", item, life)
            except TimeoutError:
                self._write("end", item, life)
            life.running = None
            life.history[item[1]] = _entry(item, status)
            self._announce()

    def _write(self, event: str, item: list[Any], life: Life) -> None:
        self.lines.append(Line(event, item[1], _read(item)[0], life.number, now_s()))

    async def connect(self, call: UpstreamCall) -> Socket:
        await self._reach()
        socket = Socket(lambda each: self._sockets.remove(each) if each in self._sockets else None)
        self._sockets.append(socket)
        return socket

    async def _reach(self) -> Life:
        life = self._life
        if life is None:
            raise UpstreamUnreachable
        await asyncio.sleep(LATENCY_S)
        return self._alive(life)

    def _alive(self, life: Life) -> Life:
        if self._life is not life:
            raise UpstreamUnavailable
        return life

    async def ask(self, call: UpstreamCall, *, time_limit_s: float, max_bytes: int = 0) -> UpstreamReply:
        try:
            async with asyncio.timeout(time_limit_s):
                return await self._ask(call)
        except TimeoutError as error:
            raise UpstreamTimeout from error

    async def _ask(self, call: UpstreamCall) -> UpstreamReply:
        moods, draw = self.moods, self.chance.random()
        life = await self._reach()
        for mood in ("late", "lost", "unheard", "silent", "busy"):
            draw -= getattr(moods, mood)
            if draw < 0:
                break
        else:
            mood = "well"
        if mood == "busy":
            return UpstreamReply(503, None, b"busy", "text/plain")
        if mood == "unheard":
            raise UpstreamUnavailable
        if mood == "late" or (mood == "silent" and self.chance.random() < 0.5):
            await asyncio.sleep(self.chance.uniform(0, SLOW_S))
        reply = self._answer(call, self._alive(life))
        await asyncio.sleep(LATENCY_S)
        if mood == "silent":
            await asyncio.Event().wait()
        if mood == "lost":
            raise UpstreamUnavailable
        self._alive(life)
        return reply

    def _answer(self, call: UpstreamCall, life: Life) -> UpstreamReply:
        parts = urlsplit(call.target)
        segments = [unquote(part) for part in parts.path.split("/") if part and part != "api"]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = orjson.loads(call.body) if isinstance(call.body, bytes) and call.body else {}
        match call.method, segments:
            case "POST", ["prompt"]:
                return self._submit(body, life)
            case "POST", ["queue"]:
                life.queue = [each for each in life.queue if each[-1][1] not in body.get("delete", [])]
                heapq.heapify(life.queue)
                self._announce()
                return _json({})
            case "POST", ["interrupt"]:
                if life.running is not None and body.get("prompt_id") in (None, life.running[1]):
                    life.interrupted.set()
                return _json({})
            case "POST", ["free"]:
                self.freed += 1
                return _json({})
            case "POST", ["history"]:
                for prompt_id in body.get("delete", []):
                    life.history.pop(prompt_id, None)
                return _json({})
            case "GET", _:
                return _look(segments, query, life)
        raise AssertionError(f"not asked for: {call.method} {call.target}")

    def _submit(self, body: dict[str, Any], life: Life) -> UpstreamReply:
        life.arrivals += 1
        item = [body["number"], body["prompt_id"], body["prompt"], body.get("extra_data", {}), list(body["prompt"])]
        heapq.heappush(life.queue, (body["number"], life.arrivals, item))
        life.arrived.set()
        self._announce()
        return _json({"prompt_id": body["prompt_id"], "number": body["number"], "node_errors": {}})


def _look(segments: list[str], query: dict[str, str], life: Life) -> UpstreamReply:
    running = [] if life.running is None else [life.running]
    pending = [each[-1] for each in life.queue]
    match segments:
        case ["queue"]:
            return _json({"queue_running": running, "queue_pending": pending})
        case ["jobs"]:
            told = [(item, "in_progress") for item in running] + [(item, "pending") for item in pending]
            return _json({"jobs": [{"id": item[1], "status": status, "priority": item[0]} for item, status in told]})
        case ["jobs", prompt_id]:
            if prompt_id in life.history or any(item[1] == prompt_id for item in running + pending):
                return _json({"id": prompt_id})
            return _json({"error": "Job not found"}, 404)
        case ["history"]:
            offset = int(query.get("offset", "0"))
            page = list(life.history.items())[offset : offset + int(query.get("max_items", "1000"))]
            return _json(dict(page))
        case ["history", prompt_id]:
            return _json({prompt_id: life.history[prompt_id]} if prompt_id in life.history else {})
    raise AssertionError(f"not asked for: {segments}")


def _json(value: Any, status: int = 200) -> UpstreamReply:
    body = orjson.dumps(value)
    return UpstreamReply(status, orjson.loads(body), body, "application/json")


def _read(item: list[Any]) -> tuple[str, float]:
    inputs = item[2]["1"]["inputs"]
    return inputs["name"], inputs["seconds"]


def _entry(item: list[Any], status: str) -> dict[str, Any]:
    kind = "execution_success" if status == "success" else "execution_interrupted"
    stamp = {"prompt_id": item[1], "timestamp": int(now_s() * 1000)}
    begun = {"prompt_id": item[1], "timestamp": int((now_s() - _read(item)[1]) * 1000)}
    return {
        "prompt": item,
        "outputs": {"1": {"text": [_read(item)[0]]}},
        "meta": {},
        "status": {
            "status_str": status,
            "completed": status == "success",
            "messages": [["execution_start", begun], [kind, stamp]],
        },
    }

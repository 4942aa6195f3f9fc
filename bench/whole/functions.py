"""Functions: what a call costs beside `POST /prompt` of the same workflow, and what a client holds that waits for the end of its job."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final, cast

import orjson

from bench.whole import documents, programs
from bench.whole.client import ask, load, request
from bench.whole.figures import Budget, Figure, absolute, compare
from bench.whole.jobs import CLIENT, until_waiting
from bench.whole.programs import Subject
from bench.whole.rounds import micro, quiet
from bench.whole.rows import Run, until_connected

NAME: Final = "bench"
NODES: Final = 50
COUNT: Final = 80
WAITING: Final = 600
WARM_UP: Final = 100
AT_ONCE: Final = 10
_DEFINITION: Final = """\
title = "Bench"
[parameters.seed]
type = "integer"
fills = [{fills}]
[outputs.picture]
node = "{output}"
"""


def definition() -> dict[str, bytes]:
    """The files of a function of 50 nodes: all its seeds are one parameter."""
    graph = orjson.loads(documents.prompts(NODES, CLIENT, 1)[0])["prompt"]
    seeds = [f'"{node_id}.seed"' for node_id, node in graph.items() if "seed" in node["inputs"]]
    output = next(node_id for node_id, node in graph.items() if node["class_type"] == "SaveImage")
    text = _DEFINITION.format(fills=", ".join(seeds), output=output)
    return {f"{NAME}.toml": text.encode(), f"{NAME}.json": orjson.dumps(graph)}


def calls(subject: Subject, fields: str = "") -> Iterator[bytes]:
    path = f"/gate/run/{NAME}"
    return (request(subject, "POST", path, orjson.dumps({"seed": seed}), fields) for seed in itertools.count())


async def functions(run: Run) -> list[Figure]:
    return [await _call(run), *([] if run.profile is not None else [await _wait(run)])]


async def _call(run: Run) -> Figure:
    """A gate that is called beside one that is sent workflows; both jobs wait."""
    with ExitStack() as stack:
        stubs, subjects = {}, []
        for name in ("gate", "gate sent workflows"):
            comfy = stubs[name] = stack.enter_context(programs.stub(run.object_info))
            subjects.append(stack.enter_context(programs.gate(comfy.url, name, run.profile, functions=definition())))
            await until_connected(comfy)
        bodies = documents.prompts(NODES, CLIENT)

        async def work(subject: Subject) -> float:
            wanted = calls(subject)
            if subject.name != "gate":
                wanted = itertools.cycle([request(subject, "POST", "/prompt", body) for body in bodies])
            return (await load(subject, itertools.islice(wanted, COUNT), 4)).count

        async def clear(subject: Subject) -> None:
            await ask(subject, "POST", "/queue", b'{"clear": true}')
            await ask(stubs[subject.name], "POST", "/bench/clear")
            await until_waiting(subject, 0)
            await quiet(subject)

        rounds = micro(await run.measure(subjects, work, until_quiet=True, after=clear))
    title, note = f"a function's call, {NODES} nodes", "of POST /prompt"
    return compare(title, "µs CPU", rounds, Budget(1.2, 1.1), of="gate sent workflows", note=note)


class Caller(asyncio.Protocol):
    """A connection that calls once and stays."""

    def __init__(self, call: bytes) -> None:
        self._call = call
        self.is_answered = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by descent
        self.transport.write(self._call)

    def data_received(self, data: bytes) -> None:
        self.is_answered.set()


async def _wait(run: Run) -> Figure:
    """Of clients that wait, beside as many that were told at once and whose connections stay open; each has a job."""
    grown: dict[str, list[float]] = {"gate": [], "told at once": []}
    for _ in range(run.rounds):
        for name, fields in (("gate", "Prefer: wait=90\r\n"), ("told at once", "")):
            grown[name].append(await _grown_kib(run, fields))
    each = [(waits - told) / WAITING for waits, told in zip(*grown.values(), strict=True)]
    return absolute("a call that waits, above its connection and its job", "KiB", {"gate": each}, Budget(10, 5))


async def _grown_kib(run: Run, fields: str) -> float:
    """What so many clients take in the memory of a gate that has had some before."""
    with programs.stub(run.object_info) as comfy, programs.gate(comfy.url, functions=definition()) as gate:
        await until_connected(comfy)
        wanted = calls(gate, fields)
        await _call_and_stay(gate, itertools.islice(wanted, WARM_UP), 0, is_told=not fields)
        before_kib = gate.memory_kib
        callers = await _call_and_stay(gate, itertools.islice(wanted, WAITING), WARM_UP, is_told=not fields)
        assert all(caller.is_answered.is_set() for caller in callers) is not bool(fields)
        return gate.memory_kib - before_kib


async def _call_and_stay(gate: Subject, wanted: Iterator[bytes], waiting: int, *, is_told: bool) -> list[Caller]:
    """waiting: jobs that there are. is_told: each is answered at once."""
    loop, callers = asyncio.get_running_loop(), list[Caller]()
    for call in wanted:
        _, caller = await loop.create_connection(partial(Caller, call), gate.host, gate.port)
        callers.append(caller)
        if is_told:
            await caller.is_answered.wait()
        elif len(callers) % AT_ONCE == 0:
            await until_waiting(gate, waiting + len(callers))
    await until_waiting(gate, waiting + len(callers))
    await quiet(gate)
    return callers

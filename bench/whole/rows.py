"""Requests over HTTP: small ones, workflows, large bodies, what describes ComfyUI, and what is listed."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from bench.whole import documents, programs
from bench.whole.client import ask, load, request, upload
from bench.whole.figures import Budget, Figure, Rounds, absolute, compare
from bench.whole.programs import Subject
from bench.whole.rounds import Work, micro, profile, quiet, take_turns

MIB: Final = 1024**2
LARGE_BYTES: Final = 200 * MIB
PACKED_WITHIN_S: Final = 20
"""A document that stays gets its smallest form after a while."""
HISTORY_JOBS: Final = 128
HISTORY_BEFORE: Final = 244.0
"""What `GET /history` with 128 jobs cost in 0.1.0, in small GETs of the naive proxy in the same run."""


class Profiled(Exception):
    """Instead of figures: what took the gate's time."""


@dataclass(frozen=True)
class Run:
    """profile: a file for the profile of the first measurement of a row, instead of its figures. is_real: object_info is a real ComfyUI's, whose
    size when compressed is that of the budget."""

    object_info: Path
    rounds: int
    profile: Path | None = None
    is_real: bool = False

    async def measure(self, subjects: list[Subject], work: Work, rounds: int = 0, **more: object) -> Rounds:
        if self.profile is not None:
            raise Profiled(await profile(subjects[0], work, self.profile))
        return await take_turns(subjects, work, rounds or self.rounds, **more)  # type: ignore[arg-type]


Row = Callable[[Run], Awaitable[list[Figure]]]


async def small_get(run: Run) -> list[Figure]:
    figures = []
    with programs.stub(run.object_info) as comfy, programs.subjects(comfy.url, profile=run.profile) as subjects:
        for path, title, budget in (
            ("/embeddings", "small GET, passed on", Budget(0.55, 0.30)),
            ("/features", "small GET, rewritten", Budget(0.55, 0.30)),
        ):
            rounds = await run.measure(subjects, gets(path, 1600))
            figures.append(compare(title, "µs CPU", micro(rounds), budget))
    return figures


def gets(path: str, count: int, fields: str = "", connections: int = 16) -> Work:
    async def work(subject: Subject) -> float:
        wanted = request(subject, "GET", path, fields=fields)
        return (await load(subject, itertools.repeat(wanted, count), connections)).count

    return work


async def latency(run: Run) -> list[Figure]:
    """On the clock: of one connection, beyond what the upstream itself takes."""
    with programs.stub(run.object_info) as comfy, programs.subjects(comfy.url, profile=run.profile) as subjects:
        added: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        for _ in range(run.rounds):
            direct_s = await _median_s(comfy)
            for subject in subjects:
                added[subject.name].append((await _median_s(subject) - direct_s) * 1e6)
    note = "on the clock"
    return [compare("small GET, latency added", "µs", added, Budget(0.7, 0.4), note=note)]


async def _median_s(subject: Subject) -> float:
    tally = await load(subject, itertools.repeat(request(subject, "GET", "/embeddings"), 400), 1)
    return statistics.median(tally.times_s)


async def until_connected(comfy: Subject) -> None:
    """Until the gate has read what ComfyUI has, of which its classes are the last."""
    while True:
        _, body = await ask(comfy, "GET", "/bench/asked")
        if "GET /object_info" in orjson.loads(body):
            return
        await quiet(comfy)


async def large(run: Run) -> list[Figure]:
    body = documents.upload(LARGE_BYTES)

    async def download(subject: Subject) -> float:
        path = f"/view?filename={LARGE_BYTES}.png"
        await load(subject, [request(subject, "GET", path)], 1)
        return LARGE_BYTES / MIB

    async def up(subject: Subject) -> float:
        await upload(subject, "/upload/image", documents.UPLOAD_FIELDS, body)
        return LARGE_BYTES / MIB

    with programs.stub(run.object_info) as comfy, programs.subjects(comfy.url, profile=run.profile) as subjects:
        before_kib = subjects[0].memory_kib
        down = micro(await run.measure(subjects, download, 3))
        sent = micro(await run.measure(subjects, up, 3))
        grown_mib = (subjects[0].memory_kib - before_kib) / 1024
    return [
        compare("download of 200 MiB", "µs CPU/MiB", down, Budget(0.7, 0.5)),
        compare("upload of 200 MiB", "µs CPU/MiB", sent, Budget(0.9, 0.7)),
        absolute("memory after both, more than before", "MiB", {"gate": [grown_mib]}, Budget(8, 3)),
    ]


async def object_info(run: Run) -> list[Figure]:
    """Once more: the gate has made the document."""
    path = "/object_info"
    with (
        programs.stub(run.object_info) as comfy,
        programs.subjects(comfy.url, profile=run.profile, allow=["*"]) as subjects,
    ):
        gate = subjects[0]
        fields, first = await ask(gate, "GET", path)
        body = first
        for _ in range(PACKED_WITHIN_S):
            fields, body = await ask(gate, "GET", path)
            if len(body) < len(first):
                break
            await asyncio.sleep(1)
        await quiet(gate)
        rounds = micro(await run.measure(subjects, gets(path, 40, connections=4)))
        again = micro(await run.measure([gate], gets(path, 800, f"If-None-Match: {fields['etag']}\r\n")))
        one = micro(await run.measure([gate], gets(f"{path}/KSampler", 800)))
    whole = len(run.object_info.read_bytes())
    coding = fields.get("content-encoding", "no coding")
    note = f"{coding}, of {whole / 1000:,.0f} kB"
    return [
        absolute(
            "/object_info again",
            "kB",
            {"gate": [len(body) / 1000]},
            Budget(145, 136) if run.is_real else None,
            note=note,
        ),
        compare("/object_info again", "µs CPU", rounds),
        absolute("/object_info again, unchanged", "µs CPU", again, note="304"),
        absolute("/object_info of one class", "µs CPU", one),
    ]


async def history(run: Run) -> list[Figure]:
    with (
        programs.stub(run.object_info, ended=HISTORY_JOBS) as comfy,
        programs.subjects(comfy.url, profile=run.profile) as subjects,
    ):
        gate, naive = subjects[:2]
        await until_connected(comfy)
        _, body = await ask(gate, "GET", "/history")
        assert len(orjson.loads(body)) == HISTORY_JOBS, "the gate shows other jobs than there are"
        await ask(gate, "GET", "/history")
        rounds = dict(micro(await run.measure(subjects, gets("/history", 200, connections=4))))
        small = micro(await take_turns([naive], gets("/embeddings", 1600), run.rounds))
    figure = compare(f"GET /history, {HISTORY_JOBS} own jobs", "µs CPU", rounds)
    units = {"gate": rounds["gate"], "small": small["naive"]}
    before = compare(
        "GET /history, against 0.1.0",
        "µs CPU",
        units,
        Budget(0.2, 0.05),
        of="small",
        scale=1 / HISTORY_BEFORE,
        note=f"which cost {HISTORY_BEFORE:g} of the naive proxy's small GETs",
    )
    return [figure, before]


async def start(run: Run) -> list[Figure]:
    """CPU from the start of the process until it listens; memory when it has become quiet, and after the first requests."""
    times: dict[str, list[float]] = {"gate": [], "naive": []}
    used: dict[str, list[float]] = {"gate": [], "naive": []}
    memory: dict[str, list[float]] = {"gate": [], "naive": []}
    later: dict[str, list[float]] = {"gate": [], "naive": []}
    with programs.stub(run.object_info) as comfy:
        for _ in range(3):
            for begin in (programs.gate, programs.naive):
                with begin(comfy.url) as subject:
                    times[subject.name].append(subject.started_s * 1000)
                    used[subject.name].append(subject.cpu_s * 1000)
                    await quiet(subject)
                    memory[subject.name].append(subject.memory_kib / 1024)
                    await _first_requests(subject)
                    await quiet(subject)
                    later[subject.name].append(subject.memory_kib / 1024)
    return [
        compare("start, CPU until it listens", "ms CPU", used),
        absolute("start, until it listens", "ms", times, Budget(600, 350), note="on the clock"),
        absolute("memory after start", "MiB", memory, Budget(60, 45)),
        absolute("memory after the first requests", "MiB", later),
    ]


async def _first_requests(subject: Subject) -> None:
    for path in ("/embeddings", "/object_info", "/queue", "/history"):
        await ask(subject, "GET", path)
    await ask(subject, "POST", "/prompt", documents.prompts(7, "bench-client", 1)[0])


def each_of(paths: list[str], subject: Subject, fields: dict[str, str]) -> Iterator[bytes]:
    """fields: by path, for what was seen before."""
    return (request(subject, "GET", path, fields=fields.get(path, "")) for path in paths)

"""WebSockets: events of a job that runs, previews, and sockets on which nothing happens."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

import orjson

from bench.whole import documents, programs
from bench.whole.client import Listener, ask, listen
from bench.whole.figures import Budget, Figure, absolute, compare
from bench.whole.programs import Subject
from bench.whole.rounds import Work, micro, quiet
from bench.whole.rows import Run

SOCKETS: Final = 1000
BURSTS: Final = 8
KINDS: Final[dict[str, tuple[str, int, Budget | None]]] = {
    "progress": ("text frame of 1 kB", 50, Budget(0.9, 0.6)),
    "executed": ("text frame that is rewritten", 50, None),
    "preview": ("preview of 50 kB", 30, Budget(0.7, 0.5)),
}
"""Title, and how many are sent before the client must have them all."""


async def frames(run: Run) -> list[Figure]:
    figures = []
    with programs.stub(run.object_info) as comfy, programs.subjects(comfy.url, profile=run.profile) as subjects:
        opened: dict[str, tuple[Listener, str]] = {}
        for subject in subjects:
            opened[subject.name] = await _running_job(comfy, subject)
        for kind, (title, burst, budget) in KINDS.items():
            rounds = micro(await run.measure(subjects, _events(comfy, opened, kind, burst)))
            figures.append(compare(title, "µs CPU", rounds, budget))
    return figures


async def _running_job(comfy: Subject, subject: Subject) -> tuple[Listener, str]:
    """A socket, and the id of a job of its client that runs."""
    client_id = f"client-{subject.name}"
    listener = await listen(subject, client_id)
    assert not listener.extensions, "frames are compressed"
    _, body = await ask(subject, "POST", "/prompt", documents.prompts(7, client_id, 1)[0])
    prompt_id = orjson.loads(body)["prompt_id"]
    if subject.name == "nginx":
        prompt_id = str(uuid.uuid4())
    await _send(comfy, subject, "start", prompt_id, 1)
    await quiet(subject)
    return listener, prompt_id


async def _send(comfy: Subject, subject: Subject, kind: str, prompt_id: str, count: int) -> None:
    to = subject.sent_client_id(f"client-{subject.name}")
    await ask(comfy, "GET", f"/bench/send?to={to}&kind={kind}&prompt={prompt_id}&count={count}")


def _events(comfy: Subject, opened: dict[str, tuple[Listener, str]], kind: str, burst: int) -> Work:
    async def work(subject: Subject) -> float:
        listener, prompt_id = opened[subject.name]
        for _ in range(BURSTS):
            before = listener.frames
            await _send(comfy, subject, kind, prompt_id, burst)
            await listener.until(before + burst)
        return BURSTS * burst

    return work


async def idle(run: Run) -> list[Figure]:
    """Resident memory for each socket, those to the upstream included."""
    held: dict[str, list[float]] = {}
    with programs.stub(run.object_info) as comfy, programs.subjects(comfy.url) as subjects:
        for subject in subjects:
            await ask(subject, "GET", "/embeddings")
            listeners = [await listen(subject, f"warm-{number}") for number in range(10)]
            await quiet(subject)
            before_kib = subject.memory_kib
            waiting = asyncio.Semaphore(50)

            async def one(number: int, subject: Subject = subject, waiting: asyncio.Semaphore = waiting) -> Listener:
                async with waiting:
                    return await listen(subject, f"idle-{number}")

            listeners += await asyncio.gather(*(one(number) for number in range(SOCKETS)))
            await quiet(subject)
            held[subject.name] = [(subject.memory_kib - before_kib) / SOCKETS]
            for listener in listeners:
                listener.transport.close()
            await quiet(subject)
    return [absolute(f"idle WebSocket, each of {SOCKETS:,}", "KiB", held, Budget(20, 12))]

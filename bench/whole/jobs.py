"""Workflows: submitted to wait, beside none and beside thousands that wait already; and run to their end."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from contextlib import ExitStack
from typing import Final

import orjson

from bench.whole import documents, programs
from bench.whole.client import ask, listen, load, request
from bench.whole.figures import Budget, Figure, compare
from bench.whole.programs import Subject
from bench.whole.rounds import Work, micro, quiet
from bench.whole.rows import Run, until_connected

PROMPT_BUDGETS: Final = {7: Budget(0.8, 0.4), 50: Budget(1.2, 0.8), 500: Budget(5, 3)}
PROMPT_COUNTS: Final = {7: 160, 50: 80, 500: 24}
CLIENT: Final = "bench-client"
RUN_COUNT: Final = 100
_DELETED_AT_ONCE: Final = 1000
_LOOK_EACH_S: Final = 0.01


class Submitted:
    """Jobs that wait, by subject, to be taken out again."""

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = defaultdict(list)

    def work(self, nodes: int, count: int, client_id: str = CLIENT) -> Work:
        bodies = documents.prompts(nodes, client_id)

        async def work(subject: Subject) -> float:
            wanted = [request(subject, "POST", "/prompt", body) for body in bodies]
            tally = await load(subject, itertools.islice(itertools.cycle(wanted), count), 4, keeps=True)
            self._ids[subject.name] += [orjson.loads(body)["prompt_id"] for _, body in tally.kept]
            return tally.count

        return work

    async def delete(self, subject: Subject) -> None:
        ids = self._ids.pop(subject.name, [])
        for begin in range(0, len(ids), _DELETED_AT_ONCE):
            await ask(subject, "POST", "/queue", orjson.dumps({"delete": ids[begin : begin + _DELETED_AT_ONCE]}))


async def prompt(run: Run) -> list[Figure]:
    """Submitted and waiting: the notice of a changed queue that follows each, and what the gate does about it, is counted too."""
    figures = []
    with ExitStack() as stack:
        subjects, submitted = [], Submitted()
        for waiting in (0,) if run.profile is not None else (0, 1000, 5000):
            comfy = stack.enter_context(programs.stub(run.object_info))
            subject = stack.enter_context(programs.gate(comfy.url, f"gate {waiting}", run.profile))
            await until_connected(comfy)
            if waiting:
                await Submitted().work(7, waiting)(subject)
            subjects.append(subject)
        for start in (programs.naive, *([programs.nginx] if programs.has_nginx() else [])):
            subjects.append(stack.enter_context(start(stack.enter_context(programs.stub(run.object_info)).url)))

        async def clear(subject: Subject) -> None:
            await submitted.delete(subject)
            if subject.name.startswith("gate"):
                await until_waiting(subject, int(subject.name.split()[1]))
            await quiet(subject)

        for nodes, budget in PROMPT_BUDGETS.items():
            work = submitted.work(nodes, PROMPT_COUNTS[nodes])
            rounds = micro(await run.measure(subjects, work, until_quiet=True, after=clear))
            title = f"POST /prompt, {nodes} nodes"
            figures.append(compare(title, "µs CPU", rounds, budget, gate="gate 0"))
            for waiting, bound in ((1000, None), (5000, Budget(1.1, 1.0))):
                shown = {f"gate {waiting}": rounds[f"gate {waiting}"], "gate 0": rounds["gate 0"]}
                words = f"{title}, {waiting:,} own jobs"
                figures.append(
                    compare(
                        words, "µs CPU", shown, bound, gate=f"gate {waiting}", of="gate 0", note="of the same with none"
                    )
                )
    return figures


async def job(run: Run) -> list[Figure]:
    """Submitted, given to ComfyUI, run, and at their end, with a socket that hears of it: all that the gate does about each of its jobs."""
    figures = []
    with ExitStack() as stack:
        subjects, stubs = [], {}
        for start in (programs.gate, programs.naive, *([programs.nginx] if programs.has_nginx() else [])):
            comfy = stack.enter_context(programs.stub(run.object_info, runs=True))
            subject = stack.enter_context(
                programs.gate(comfy.url, profile=run.profile) if start is programs.gate else start(comfy.url)
            )
            if start is programs.gate:
                await until_connected(comfy)
            listener = await listen(subject, CLIENT)
            stack.callback(listener.transport.close)
            subjects.append(subject)
            stubs[subject.name] = comfy
        for nodes in (7, 50):
            work = Submitted().work(nodes, RUN_COUNT)

            async def to_the_end(subject: Subject, work: Work = work) -> float:
                before = await _ended(stubs[subject.name])
                count = await work(subject)
                while await _ended(stubs[subject.name]) < before + count:
                    await asyncio.sleep(_LOOK_EACH_S)
                if subject.name == "gate":
                    await until_waiting(subject, 0)
                return count

            rounds = micro(await run.measure(subjects, to_the_end, until_quiet=True))
            figures.append(compare(f"a whole job of {nodes} nodes", "µs CPU", rounds))
    return figures


async def _ended(comfy: Subject) -> int:
    _, body = await ask(comfy, "GET", "/bench/ended")
    return int(body)


def submits(nodes: int, count: int, client_id: str = CLIENT) -> Work:
    """Jobs that stay."""
    return Submitted().work(nodes, count, client_id)


async def until_waiting(subject: Subject, waiting: int) -> None:
    """Until the gate knows of these jobs, and of no others."""
    while True:
        _, body = await ask(subject, "GET", "/prompt")
        if orjson.loads(body)["exec_info"]["queue_remaining"] == waiting:
            return
        await quiet(subject)

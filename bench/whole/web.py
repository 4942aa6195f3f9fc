"""The web UI's files, as a browser loads them: for the first time, for the first time when another browser has, and again."""

from __future__ import annotations

import asyncio
from typing import Final

import psutil

from bench.whole import documents, programs
from bench.whole.client import load, request
from bench.whole.figures import Budget, Figure, absolute, compare
from bench.whole.programs import Subject
from bench.whole.rounds import micro, quiet, take_turns
from bench.whole.rows import Run

CONNECTIONS: Final = 6
KEPT_WITHIN_S: Final = 90
"""The gate compresses with what nobody else wants of the machine."""
MOSTLY: Final = 0.25
COLD_BEFORE: Final = 1.5
"""The CPU of a cold load in 0.1.0, in cold loads of the naive proxy in the same run."""
BUDGET_SHARE: Final = Budget(3.6 / 16.7, 3.4 / 16.7)
"""Of the bytes without any coding."""


async def _until_kept(gate: Subject, paths: list[str], whole: int) -> None:
    """Until most of it is sent compressed, and in the coding that takes longest too."""
    for fields in ("", "Accept-Encoding: br\r\n"):
        for _ in range(KEPT_WITHIN_S):
            wanted = [request(gate, "GET", path, fields=fields, coding=not fields) for path in paths]
            tally = await load(gate, wanted, 1, keeps=True)
            if sum(len(body) for _, body in tally.kept) < whole * MOSTLY:
                break
            await asyncio.sleep(1)
    await quiet(gate)
    while psutil.Process(gate.pid).children():  # what compresses stays for a moment
        await asyncio.sleep(0.1)


async def web_ui(run: Run) -> list[Figure]:
    found = documents.web_ui()
    if found is None:
        print("web UI: comfyui-frontend-package is not installed")
        return []
    root, paths = found
    sizes = [(root / (path.lstrip("/") or "index.html")).stat().st_size for path in paths]

    async def cold(subject: Subject) -> float:
        await load(subject, [request(subject, "GET", path) for path in paths], CONNECTIONS)
        return 1

    with (
        programs.stub(run.object_info, web=root) as comfy,
        programs.subjects(comfy.url, profile=run.profile) as subjects,
    ):
        gate = subjects[0]
        before_s, before_kib = gate.cpu_s, gate.memory_kib
        first = await load(gate, [request(gate, "GET", path) for path in paths], CONNECTIONS)
        first_s = gate.cpu_s - before_s
        await _until_kept(gate, paths, sum(sizes))
        kept_s = gate.cpu_s - before_s - first_s + gate.ended_helpers_cpu_s
        kept_mib = (gate.memory_kib - before_kib) / 1024
        rounds = micro(await run.measure(subjects, cold, 3))
        answers = await load(gate, [request(gate, "GET", path) for path in paths], 1, keeps=True)
        tags = [fields.get("etag", "") for fields, _ in answers.kept]
        fields = [f"If-None-Match: {tag}\r\n" if tag else "" for tag in tags]

        async def warm(subject: Subject) -> float:
            wanted = [request(subject, "GET", path, fields=more) for path, more in zip(paths, fields, strict=True)]
            return (await load(subject, wanted, CONNECTIONS)).count

        again = micro(await take_turns([gate], warm, run.rounds))
    whole = sum(sizes)
    received = sum(len(body) for _, body in answers.kept)
    words = f"{len(paths)} files of {whole / 1e6:.1f} MB"
    milli = {name: [value / 1000 for value in values] for name, values in rounds.items()}
    against = {name: milli[name] for name in ("gate", "naive")}
    return [
        absolute("web UI, its first load", "MB", {"gate": [first.received_bytes / 1e6]}, note=words),
        absolute("web UI, its first load", "ms CPU", {"gate": [first_s * 1000]}),
        absolute("web UI, made ready beside it", "ms CPU", {"gate": [kept_s * 1000]}),
        absolute("web UI, held for it", "MiB", {"gate": [kept_mib]}),
        absolute("web UI, cold browser", "MB", {"gate": [received / 1e6]}),
        absolute("web UI, cold browser, of its bytes", "", {"gate": [received / whole]}, BUDGET_SHARE),
        compare("web UI, cold browser", "ms CPU", milli),
        compare(
            "web UI, cold browser, against 0.1.0",
            "ms CPU",
            against,
            Budget(0.3, 0.15),
            scale=1 / COLD_BEFORE,
            note=f"which cost {COLD_BEFORE:g} of the naive proxy's",
        ),
        absolute("web UI, a file that the browser has", "µs CPU", again, note="304"),
    ]

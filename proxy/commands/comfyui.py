"""`comfygate comfyui`: the ComfyUIs that jobs run on, and what the gate's database, and each itself, says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from proxy.commands.comfyui_queues import ask_queues
from proxy.commands.draining import names_of
from proxy.commands.gate_database import ask_database
from proxy.commands.job_texts import in_columns
from proxy.config import load_config
from proxy.config.comfyui import FIRST
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.operator_operations import load

app = typer.Typer(
    name="comfyui", help="List the ComfyUIs that jobs run on.", no_args_is_help=True, add_completion=False
)
_HEAD = ("NAME", "URL", "JOBS", "RUNNING", "NOTE")


class _Seen(NamedTuple):
    """url: "" of one that is configured no more. jobs: how many it was given, and may have at once in `window`. is_stuck: it has jobs waiting and
    runs none."""

    name: str
    url: str
    jobs: int
    running: int
    window: int
    is_drained: bool
    is_there: bool
    is_stuck: bool

    @property
    def note(self) -> str:
        notes = {
            "drained": self.is_drained,
            "not in the configuration; goes with its last job": not self.url,
            "does not answer": bool(self.url) and not self.is_there,
            "stuck: it runs nothing": self.is_stuck,
        }
        return ", ".join(note for note, is_so in notes.items() if is_so)


@app.callback()
def comfyui() -> None:
    """List the ComfyUIs that jobs run on."""


@app.command("list")
def list_(
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each ComfyUI.")] = False,
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """List the ComfyUIs in the order of the configuration: what each has of the gate's jobs, whether it is drained, answers, and runs what it has."""
    found = _look(config)
    if is_json:
        for seen in found:
            typer.echo(orjson.dumps(_as_json(seen)))
        return
    rows = [
        (
            each.name,
            each.url or "-",
            f"{each.jobs} of {each.window}" if each.url else str(each.jobs),
            str(each.running),
            each.note,
        )
        for each in found
    ]
    typer.echo(in_columns([_HEAD, *rows]))


def _look(file: Path) -> list[_Seen]:
    found = ask_database(file, lambda database: database.read(load))
    config = load_config(file)
    names, seen = names_of(config), []
    queues = asyncio.run(ask_queues(config))
    # The first one may have had no name, or that of [upstream].
    gone = dict.fromkeys(job.comfyui for job in found.given if job.comfyui not in ("", FIRST, *names))
    for each in config.comfyuis:
        given = [job for job in found.of(each.name, names).given if job.comfyui not in gone]
        is_drained = found.is_draining or (len(names) > 1 and each.name in found.drained)
        queue, window = queues[each.name], config.window_of(each)
        is_there, is_stuck = queue is not None, queue is not None and queue.stands
        seen.append(_Seen(each.name, each.url, len(given), _running(given), window, is_drained, is_there, is_stuck))
    for name in gone:
        given = [job for job in found.given if job.comfyui == name]
        seen.append(_Seen(name, "", len(given), _running(given), 0, False, False, False))
    return seen


def _running(jobs: Sequence[JobRow]) -> int:
    return sum(job.state == StoredState.RUNNING for job in jobs)


def _as_json(seen: _Seen) -> dict[str, Any]:
    return {
        "name": seen.name,
        "url": seen.url or None,
        "jobs": seen.jobs,
        "running": seen.running,
        "window": seen.window,
        "drained": seen.is_drained,
        "answers": seen.is_there,
        "stuck": seen.is_stuck,
    }

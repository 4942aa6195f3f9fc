"""`comfygate comfyui`: the ComfyUIs that jobs run on, and what the gate's database says of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from proxy.commands.draining import names_of
from proxy.commands.gate_database import ask_database
from proxy.commands.job_texts import in_columns
from proxy.config import load_config
from proxy.config.comfyui import ComfyUISettings
from proxy.jobs.job_rows import StoredState
from proxy.jobs.operator_operations import load

app = typer.Typer(
    name="comfyui", help="List the ComfyUIs that jobs run on.", no_args_is_help=True, add_completion=False
)
_HEAD = ("NAME", "URL", "JOBS", "RUNNING", "NOTE")


class _Seen(NamedTuple):
    """jobs: how many it was given, and may have at once in `window`."""

    comfyui: ComfyUISettings
    jobs: int
    running: int
    window: int
    is_drained: bool


@app.callback()
def comfyui() -> None:
    """List the ComfyUIs that jobs run on."""


@app.command("list")
def list_(
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each ComfyUI.")] = False,
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """List the ComfyUIs in the order of the configuration: what each has of the gate's jobs, and whether it is drained. Asks the database, not them."""
    found = _look(config)
    if is_json:
        for seen in found:
            typer.echo(orjson.dumps(_as_json(seen)))
        return
    rows = [
        (
            each.comfyui.name,
            each.comfyui.url,
            f"{each.jobs} of {each.window}",
            str(each.running),
            "drained" if each.is_drained else "",
        )
        for each in found
    ]
    typer.echo(in_columns([_HEAD, *rows]))


def _look(file: Path) -> list[_Seen]:
    found = ask_database(file, lambda database: database.read(load))
    config = load_config(file)
    names, seen = names_of(config), []
    for each in config.comfyuis:
        given = found.of(each.name, names).given
        running = sum(job.state == StoredState.RUNNING for job in given)
        is_drained = found.is_draining or (len(names) > 1 and each.name in found.drained)
        seen.append(_Seen(each, len(given), running, config.window_of(each), is_drained))
    return seen


def _as_json(seen: _Seen) -> dict[str, Any]:
    return {
        "name": seen.comfyui.name,
        "url": seen.comfyui.url,
        "jobs": seen.jobs,
        "running": seen.running,
        "window": seen.window,
        "drained": seen.is_drained,
    }

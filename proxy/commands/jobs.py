"""`comfygate jobs`: what the gate's database says of jobs, and what the operator does with them. The gate may run meanwhile, and hears of it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypeVar

import orjson
import typer

from proxy.commands.draining import count_jobs, drain_comfyui, drained_note, drained_notes, end_draining, that_wait
from proxy.commands.exits import fail
from proxy.commands.gate_database import ask_database, until
from proxy.commands.job_texts import TABLE_HEAD, as_json, cells_of, describe, in_columns, note_of
from proxy.commands.job_why import Why, explain_job, in_words, to_json
from proxy.config import load_config
from proxy.config.units import parse_duration
from proxy.jobs.job_rows import CANCEL, JobRow, StoredState
from proxy.jobs.operator_operations import Load, load, standing
from proxy.jobs.store_operations import cancel_waiting
from proxy.jobs.store_reading import find, listing
from proxy.jobs.store_upkeep import retry as try_again
from proxy.jobs.store_upkeep import wish
from proxy.persistence.operations import Database

app = typer.Typer(
    name="jobs",
    help="List, show, cancel and retry jobs, and drain ComfyUI. The gate may run or not.",
    no_args_is_help=True,
    add_completion=False,
)
T = TypeVar("T")
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The prompt id, which `comfygate jobs list` shows.")]
_DEFAULT: Final = Path("config.toml")
_CANCEL_S: Final = 15.0


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's jobs.")] = None,
    state: Annotated[StoredState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each job.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """List jobs, the newest first."""

    async def work(database: Database) -> tuple[list[JobRow], Load]:
        return await database.read(listing, tenant, state, limit), await database.read(load)

    jobs, found = ask_database(config, work)
    if is_json:
        for job in jobs:
            typer.echo(orjson.dumps(as_json(job)))
        return
    now_s = time.time()
    if jobs:
        typer.echo(in_columns([TABLE_HEAD, *(cells_of(job, now_s) for job in jobs)]))
    else:
        is_narrowed = tenant is not None or state is not None
        typer.echo("There is no such job." if is_narrowed else "There is no job.", err=True)
    for note in drained_notes(found, load_config(config)):
        typer.echo(note, err=True)


@app.command()
def show(
    prompt_id: JobId,
    is_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Show what is known of one job, with each time that ComfyUI had it."""
    job = ask_database(config, lambda database: _find(database, prompt_id))
    typer.echo(orjson.dumps(as_json(job)) if is_json else describe(job, time.time()))


@app.command()
def why(
    prompt_id: JobId,
    is_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Say why a job waits, or where it is, with what each ComfyUI has and lacks of what it needs. Asks the ComfyUIs, not the gate."""
    explained = ask_database(config, lambda database: _explain(database, config, prompt_id))
    typer.echo(orjson.dumps(to_json(explained)) if is_json else in_words(explained, time.time()))


@app.command()
def cancel(prompt_id: JobId, config: ConfigFile = _DEFAULT) -> None:
    """Cancel a job that waits or runs. What runs is stopped by the gate, within seconds."""
    job = ask_database(config, lambda database: _cancel(database, prompt_id))
    typer.echo(f"Job {prompt_id} of {job.tenant} is {_ended(job)}.")


@app.command()
def retry(prompt_id: JobId, config: ConfigFile = _DEFAULT) -> None:
    """Let a job that failed wait again, under the same id."""
    job = ask_database(config, lambda database: _retry(database, prompt_id))
    typer.echo(f"Job {prompt_id} of {job.tenant} waits again.")


@app.command()
def drain(
    comfyui: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one of several ComfyUIs: the others take its jobs.")
    ] = None,
    wait: Annotated[
        str | None, typer.Option(help='How long to wait for it, in seconds or as "5m"; without it as long as it takes.')
    ] = None,
    is_off: Annotated[bool, typer.Option("--off", help="End it: jobs are given to ComfyUI again.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Give ComfyUI no more jobs, and wait until it has none of the gate's. New jobs are accepted, and wait in the gate."""
    wait_s = _seconds(wait)
    if is_off:
        for line in ask_database(config, lambda database: end_draining(database, load_config(config), comfyui)):
            typer.echo(line)
        return
    note = drained_note(comfyui)
    try:
        found = ask_database(config, lambda database: drain_comfyui(database, load_config(config), comfyui, wait_s))
    except KeyboardInterrupt:
        fail(f"Not waited for any longer. {note}")
    if found.given:
        fail(f"{comfyui or 'ComfyUI'} still has {count_jobs(len(found.given))} after {wait_s:g} s. {note}")
    typer.echo(f"{comfyui or 'ComfyUI'} has none of the gate's jobs; {that_wait(found)}. {note}")


async def _find(database: Database, prompt_id: str) -> JobRow:
    job = await database.read(find, prompt_id) if prompt_id.isprintable() else None
    if job is None:
        _refuse_unknown(prompt_id)
    return job


async def _explain(database: Database, config: Path, prompt_id: str) -> Why:
    found = await database.read(standing, prompt_id) if prompt_id.isprintable() else None
    if found is None:
        _refuse_unknown(prompt_id)
    return await explain_job(load_config(config), database, found)


async def _cancel(database: Database, prompt_id: str) -> JobRow:
    job = await _find(database, prompt_id)
    if job.has_ended:
        fail(f"Job {prompt_id} is {_ended(job)} already.")

    async def look() -> JobRow | None:
        await database.run(cancel_waiting, job.tenant, [prompt_id], time.time())
        return await database.read(find, prompt_id)

    found = await look()
    if found is not None and not found.has_ended:
        # ComfyUI has it, so the gate that follows it has to stop it.
        await database.run(wish, prompt_id, CANCEL)
    found = await until(database, look, _has_ended, _CANCEL_S)
    if found is None:  # its client has deleted it meanwhile
        return job._replace(state=StoredState.CANCELED)
    if not found.has_ended:
        note = note_of(found, time.time())
        fail(f"Job {prompt_id} is {found.state}, and no gate has stopped it within {_CANCEL_S:g} s. {note}".rstrip())
    return found


def _has_ended(job: JobRow | None) -> bool:
    return job is None or job.has_ended


async def _retry(database: Database, prompt_id: str) -> JobRow:
    before = await _find(database, prompt_id)
    if before.state != StoredState.FAILED:
        fail(f"Job {prompt_id} is {before.state}: only a job that failed can be tried again.")
    job = await database.run(try_again, prompt_id)
    if job is None:
        fail(f"Job {prompt_id} cannot be tried again: what was submitted is not kept any more.")
    return job


def _seconds(text: str | None) -> float:
    if text is None:
        return math.inf
    try:
        return parse_duration(float(text) if text.strip().isdecimal() else text)
    except ValueError as error:
        fail(f"--wait {text!r}: {error}")


def _refuse_unknown(prompt_id: str) -> NoReturn:
    fail(f"There is no job {prompt_id}." if prompt_id.isprintable() else "There is no such job.")


def _ended(job: JobRow) -> str:
    return {StoredState.SUCCEEDED: "done", StoredState.FAILED: "failed"}.get(StoredState(job.state), job.state)

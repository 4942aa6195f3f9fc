"""`comfygate storage`: what is copied and what is not, making copies again, and whether the bucket takes them. The gate may run meanwhile, and hears of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from policy.copies import CopyState
from policy.functions.conversion import Recipe
from policy.v2.times import timestamp, timestamp_or_null
from proxy.commands.exits import fail
from proxy.commands.gate_database import ask_database
from proxy.commands.job_texts import in_columns
from proxy.commands.terminal import printable
from proxy.config import ConfigError, load_config
from proxy.copies.bucket import Bucket, BucketFailed, ObjectGone
from proxy.copies.copy_operations import failed_ids, listing
from proxy.copies.copy_operations import resend as make_again
from proxy.copies.opening import find_mistakes, open_bucket
from proxy.jobs.copy_requests import Copy
from proxy.persistence.operations import Database

app = typer.Typer(
    name="storage",
    help="List copies of what jobs made, make them again, and try the bucket.",
    no_args_is_help=True,
    add_completion=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
_DEFAULT: Final = Path("config.toml")
_HEAD: Final = ("ID", "TENANT", "JOB", "FILE", "BYTES", "ENDED", "STATE", "ATTEMPTS", "NOTE")
_LINK_S: Final = 60.0


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Also those that are as they should be.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """List copies that wait to be made, have failed or are to be deleted, the newest first."""
    states = () if is_all else (CopyState.WAITING, CopyState.FAILED, CopyState.UNWANTED)
    found = ask_database(config, lambda database: database.read(listing, tenant, states, limit))
    if is_json:
        for copy in found:
            typer.echo(orjson.dumps(_as_json(copy)))
    elif found:
        now_s = time.time()
        typer.echo(in_columns([_HEAD, *(_cells_of(copy, now_s) for copy in found)]))
    else:
        typer.echo("There is no such copy.", err=True)


@app.command()
def resend(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="As `comfygate storage list` shows them.")
    ] = None,
    is_failed: Annotated[bool, typer.Option("--failed", help="All that have failed.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Make copies now that wait or have failed, and try as often as for new ones."""
    if bool(ids) == is_failed:
        fail("Name copies, or give --failed.")
    wanted = [each for each in ids or () if each.isprintable()]

    async def work(database: Database) -> list[Copy]:
        chosen = await database.read(failed_ids) if is_failed else wanted
        return await database.run(make_again, chosen, time.time())

    found = ask_database(config, work)
    typer.echo(f"{len(found)} to be made again: a running gate begins at once.")
    missing = [printable(each) for each in ids or () if each not in {copy.copy_id for copy in found}]
    if missing:
        fail(f"There is no copy {', '.join(missing)} that waits or has failed.")


@app.command("test")
def try_bucket(config: ConfigFile = _DEFAULT) -> None:
    """Write, read, sign for and delete one small object."""
    try:
        loaded = load_config(config)
        if mistakes := find_mistakes(loaded):
            raise ConfigError(config, mistakes)
    except ConfigError as error:
        fail(str(error))
    if not loaded.storage.is_on:
        fail(f"{config} has no [storage] with a url: nothing is copied.")
    bucket = open_bucket(loaded)
    try:
        asyncio.run(_try(bucket))
    except BucketFailed as error:
        fail(f"{bucket.place} cannot be used: {error}.")
    links = "makes links" if bucket.has_links else "makes no links, so the gate gives the files"
    typer.echo(f"{bucket.place} takes, gives and deletes objects, and {links}.")


async def _try(bucket: Bucket) -> None:
    """Raises BucketFailed, with the step that does not work."""
    key, data = f"comfygate-test-{secrets.token_hex(8)}.txt", secrets.token_hex(32).encode()

    async def pieces() -> Any:
        yield data

    try:
        await bucket.put(key, pieces(), len(data), "text/plain", key)
    except BucketFailed as error:
        raise BucketFailed(f"writing: {error}") from None
    try:
        if await bucket.read(key, 0, len(data), len(data)) != data:
            raise BucketFailed("it gives other bytes than it was given")
        await bucket.sign([key], _LINK_S)
    except BucketFailed as error:
        raise BucketFailed(f"reading: {error}; the object {key} is left there") from None
    try:
        await bucket.delete(key)
        await bucket.size_of(key)
    except ObjectGone:
        return
    except BucketFailed as error:
        raise BucketFailed(f"deleting: {error}; the object {key} is left there") from None
    raise BucketFailed(f"what was deleted is still there: {key}")


def _state_of(copy: Copy, now_s: float) -> str:
    if copy.gate:
        return "is being worked at"
    if copy.due_at_s is None or copy.state == CopyState.FAILED:
        return copy.state
    wait_s = copy.due_at_s - now_s
    return f"{copy.state}, next in {wait_s:.0f} s" if wait_s > 0 else f"{copy.state}, is due"


def _cells_of(copy: Copy, now_s: float) -> tuple[str, ...]:
    form = f" ({Recipe.from_mark(copy.form).words})" if copy.form else ""
    file = "(not known yet)" if copy.is_whole_job else f"{printable(copy.path)}{form}"
    size = "" if copy.is_whole_job or (copy.form and not copy.form_hash) else str(copy.stored_bytes)
    return (
        *(copy.copy_id, copy.tenant, copy.prompt_id, file, size, timestamp(copy.ended_at_s), _state_of(copy, now_s)),
        *(str(copy.attempts), copy.note),
    )


def _as_json(copy: Copy) -> dict[str, Any]:
    """file: null while it is not known what the job made. form: how its function gives it, null for the file as it is. size_bytes: of what was measured."""
    return {
        "id": copy.copy_id,
        "tenant": copy.tenant,
        "job": copy.prompt_id,
        "file": None if copy.is_whole_job else copy.path,
        "form": Recipe.from_mark(copy.form).words if copy.form else None,
        "size_bytes": copy.stored_bytes,
        "object": copy.object_key or None,
        "ended_at": timestamp(copy.ended_at_s),
        "state": copy.state,
        "copied_at": timestamp_or_null(copy.copied_at_s),
        "next_attempt_at": timestamp_or_null(copy.due_at_s),
        "attempts": copy.attempts,
        "last_attempt_at": timestamp_or_null(copy.tried_at_s),
        "note": copy.note,
    }

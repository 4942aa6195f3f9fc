"""`comfygate webhooks`: secrets for endpoints, what was delivered and what was not, and sending again. The gate may run meanwhile, and hears of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from policy.v2.times import timestamp, timestamp_or_null
from proxy.auth.atomic_file import PRIVATE_MODE
from proxy.commands.exits import fail
from proxy.commands.gate_database import ask_database
from proxy.commands.job_texts import in_columns
from proxy.commands.terminal import printable
from proxy.config.webhooks import check_name
from proxy.persistence.operations import Database
from proxy.webhooks.deliveries import Delivery, EndpointRow, endpoint_rows, listing
from proxy.webhooks.deliveries import resend as send_again
from proxy.webhooks.endpoint import new_secret, place_of

app = typer.Typer(
    name="webhooks",
    help="Make secrets for webhooks, list what was delivered and what was not, and send again.",
    no_args_is_help=True,
    add_completion=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
_DEFAULT: Final = Path("config.toml")
_HEAD: Final = ("ID", "TENANT", "ENDPOINT", "EVENT", "JOB", "ENDED", "STATE", "ATTEMPTS", "NOTE")
_SNIPPET: Final = """\
The secret is in {file}, which its owner alone can read. Give its content to the receiver, and write into {config}:

  [[webhooks]]
  name = "{name}"
  tenant = "NAME OF THE TENANT"
  url = "https://ADDRESS OF THE RECEIVER"
  secret_file = "{setting}"

Where the endpoint stands there already, name the old file as previous_secret_file until the receiver knows the new secret."""


@app.command()
def secret(
    name: Annotated[str, typer.Argument(help="The endpoint's name.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; webhook-NAME.secret beside the configuration when absent."),
    ] = None,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Make a secret, in a file of its own. A file that is there already is never overwritten."""
    try:
        check_name(name)
    except ValueError as error:
        fail(f"{printable(name)}: {error}.")
    folder = config.parent
    file = output or folder / f"webhook-{name}.secret"
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{new_secret()}\n")
    except FileExistsError:
        fail(f"{file} is there already and stays as it is. Choose another file with --output.")
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}.")
    is_beside = file.resolve().is_relative_to(folder.resolve())
    setting = file.resolve().relative_to(folder.resolve()) if is_beside else file.resolve()
    typer.echo(_SNIPPET.format(file=file, config=config, name=name, setting=setting.as_posix()))


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    is_waiting: Annotated[
        bool | None, typer.Option("--waiting/--done", help="Only those to be sent, or only the others.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """List webhooks that are to be sent, and those that lately were or could not be, the newest first."""

    async def work(database: Database) -> tuple[list[Delivery], list[EndpointRow]]:
        return await database.read(listing, tenant, is_waiting, limit), await database.read(endpoint_rows)

    found, endpoints = ask_database(config, work)
    if is_json:
        for delivery in found:
            typer.echo(orjson.dumps(_as_json(delivery)))
        return
    if found:
        now_s = time.time()
        typer.echo(in_columns([_HEAD, *(_cells_of(delivery, now_s) for delivery in found)]))
    else:
        typer.echo("There is no such webhook." if tenant or is_waiting is not None else "There is none.", err=True)
    for endpoint in endpoints:
        if endpoint.switched_off_s is not None and tenant in (None, endpoint.tenant):
            since = timestamp(endpoint.switched_off_s)
            words = "changing its configuration, or `comfygate webhooks resend`, switches it on"
            typer.echo(f"{endpoint.name} answered 410 and is switched off since {since}: {words}.", err=True)


@app.command()
def resend(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `comfygate webhooks list` shows them.")],
    config: ConfigFile = _DEFAULT,
) -> None:
    """Send webhooks again, as often as new ones; an endpoint that had wanted no more is told again."""
    wanted = [each for each in ids if each.isprintable()]
    found = ask_database(config, lambda database: database.run(send_again, wanted, time.time()))
    for delivery in found:
        typer.echo(f"{delivery.id} of job {delivery.prompt_id} is sent to {_recipient_of(delivery)} again.")
    missing = [printable(each) for each in ids if each not in {delivery.id for delivery in found}]
    if missing:
        fail(f"There is no webhook {', '.join(missing)}.")


def _recipient_of(delivery: Delivery) -> str:
    return place_of(delivery.url) if delivery.url else delivery.endpoint


def _state_of(delivery: Delivery, now_s: float) -> str:
    if delivery.due_at_s is None:
        return delivery.outcome
    if delivery.gate:
        return "is being sent"
    wait_s = delivery.due_at_s - now_s
    return f"waits {wait_s:.0f} s" if wait_s > 0 else "is due"


def _cells_of(delivery: Delivery, now_s: float) -> tuple[str, ...]:
    return (
        *(delivery.id, delivery.tenant, _recipient_of(delivery), delivery.told, delivery.prompt_id),
        *(timestamp(delivery.ended_at_s), _state_of(delivery, now_s), str(delivery.attempts), delivery.note),
    )


def _as_json(delivery: Delivery) -> dict[str, Any]:
    """outcome: null while it is to be sent."""
    return {
        "id": delivery.id,
        "tenant": delivery.tenant,
        "endpoint": delivery.endpoint,
        "origin": place_of(delivery.url) if delivery.url else None,
        "type": delivery.told.value,
        "job": delivery.prompt_id,
        "ended_at": timestamp(delivery.ended_at_s),
        "outcome": delivery.outcome or None,
        "next_attempt_at": timestamp_or_null(delivery.due_at_s),
        "attempts": delivery.attempts,
        "last_attempt_at": timestamp_or_null(delivery.tried_at_s),
        "note": delivery.note,
    }

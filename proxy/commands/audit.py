"""`comfygate audit` and `comfygate why`: what the audit trail says, as a table, as JSON, and of one refusal in sentences."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from proxy.commands.exits import fail
from proxy.commands.terminal import printable
from proxy.config import Config, ConfigError, load_config
from proxy.config.units import parse_duration
from proxy.observability.audit_log import is_since, read_trail
from proxy.observability.refusal_advice import explain_refusal, is_refusal, moment, sentence

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
_DEFAULT: Final = Path("config.toml")
_HEAD: Final = ("WHEN", "TENANT", "WHAT", "STATUS", "REQUEST", "WHY")
_MAX_WHY: Final = 100
_FETCHES_BEFORE: Final = 256
"""Lines of the trail that stand before the one of their request, of many requests at once."""
_OF_NO_REQUEST: Final = frozenset({"job", "job-attempt", "webhook"})


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's lines.")] = None,
    since: Annotated[str | None, typer.Option(help='Only lines of the last "1d", "2h", …')] = None,
    event: Annotated[
        str | None, typer.Option(help="Only these: submission, job, login, refused, fetch, webhook, config, key.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused.")] = False,
    request_id: Annotated[str | None, typer.Option("--id", help="Only this request id or prompt id.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines, also on a terminal; elsewhere they always are.")
    ] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Print the lines of the audit trail, oldest first: a table on a terminal, JSON lines for programs."""
    loaded = _load(config)
    try:
        from_s = time.time() - parse_duration(since) if since is not None else None
    except ValueError as error:
        fail(f"--since {since!r}: {error}")
    is_table = _is_terminal() and not as_json
    if is_table:
        typer.echo(_line(_HEAD))
    for entry in _trail(loaded):
        if tenant is not None and entry.get("tenant") != tenant:
            continue
        if event is not None and entry.get("event") != event:
            continue
        if refused and not is_refusal(entry):
            continue
        if request_id is not None and request_id not in (entry.get("request_id"), entry.get("prompt_id")):
            continue
        if from_s is not None and not is_since(entry, from_s):
            continue
        typer.echo(_line(_cells(entry)) if is_table else orjson.dumps(entry).decode())


def why(
    request_id: Annotated[
        str | None, typer.Argument(help="The request id: it stands in every refusal and in X-Request-Id.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="The last refusal, instead of an id.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The record itself.")] = False,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Say in sentences why something was refused, and which setting to change."""
    if (request_id is None) is not last:
        fail("Give a request id, or --last for the last refusal.")
    loaded = _load(config)
    found: dict[str, Any] | None = None
    not_fetched: list[dict[str, Any]] = []
    lately: deque[dict[str, Any]] = deque(maxlen=_FETCHES_BEFORE)
    for entry in _trail(loaded):
        if entry.get("event") == "fetch":
            lately.append(entry)
            continue
        is_meant = (
            is_refusal(entry) if request_id is None else request_id in (entry.get("request_id"), entry.get("prompt_id"))
        )
        if is_meant and tenant in (None, entry.get("tenant")) and entry.get("event") not in _OF_NO_REQUEST:
            found = entry
            of_it = (each for each in lately if each.get("request_id") == entry.get("request_id"))
            not_fetched = [each for each in of_it if each.get("result") != "fetched"]
    if found is None:
        fail(_nothing_found(request_id, tenant))
    if as_json:
        typer.echo(orjson.dumps(found).decode())
    elif is_refusal(found):
        told = [*explain_refusal(found, loaded).splitlines(), *map(_not_fetched, not_fetched)]
        typer.echo("\n".join(map(printable, told)))
    else:
        typer.echo(f"Request {found.get('request_id')} was not refused: it got {found.get('status')}.")


def _not_fetched(entry: Mapping[str, Any]) -> str:
    """Why a file that stands elsewhere did not come: its client is told less."""
    why_text = ": ".join(filter(None, (str(entry.get("result")), str(entry.get("note") or ""))))
    return f"Nothing was fetched from {entry.get('origin')} ({why_text})."


def _nothing_found(request_id: str | None, tenant: str | None) -> str:
    whose = f" of {tenant}" if tenant is not None else ""
    if request_id is None:
        return f"The audit trail has no refusal{whose}."
    return (
        f"The audit trail has no request {request_id}{whose}. It holds submissions, logins, and refused routes and uploads; "
        "for anything else look for the id in the gate's log."
    )


def _load(config: Path) -> Config:
    try:
        return load_config(config)
    except ConfigError as error:
        fail(str(error))


def _trail(config: Config) -> Iterator[dict[str, Any]]:
    file = config.audit_file
    if file is None:
        fail('There is no audit trail: log.audit_file is "". Remove that line, and the gate keeps one from then on.')
    try:
        yield from read_trail(file, config.log.audit_keep)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}. Run this as the user that the gate runs as.")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    what = entry.get("route") or entry.get("event")
    return (
        moment(entry.get("time")),
        str(entry.get("tenant") or "-"),
        str(what),
        str(entry.get("status") or entry.get("outcome") or entry.get("result") or entry.get("change") or "-"),
        str(entry.get("request_id") or entry.get("prompt_id") or entry.get("key") or "-"),
        _why(entry),
    )


def _why(entry: dict[str, Any]) -> str:
    """What is wrong in a few words; of several violations the first."""
    violations = entry.get("violations")
    if isinstance(violations, list) and violations:
        more = len(violations) - 1 + int(entry.get("more_violations") or 0)
        text = sentence(violations[0])
        text = text if len(text) <= _MAX_WHY else text[: _MAX_WHY - 1] + "…"
        return f"{text} (and {more} more)" if more else text
    mistakes = entry.get("mistakes")
    if isinstance(mistakes, list) and mistakes:
        return str(mistakes[0])
    return str(entry.get("reason") or entry.get("failing_class") or entry.get("note") or "")


def _line(cells: tuple[str, ...]) -> str:
    when, tenant, what, status, request, why_text = (printable(cell) for cell in cells)
    return f"{when:<23}  {tenant:<12}  {what:<18}  {status:<9}  {request:<16}  {why_text}".rstrip()

"""`comfygate audit`: reads the audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from proxy.audit import cut_off, is_since, read_trail
from proxy.commands.exits import fail
from proxy.config import ConfigError, load_config
from proxy.config.units import parse_duration


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's lines.")] = None,
    since: Annotated[str | None, typer.Option(help='Only lines of the last "1d", "2h", …')] = None,
    event: Annotated[str | None, typer.Option(help="Only these: submission, job, login, refused, config, key.")] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """Print the lines of the audit trail, oldest first."""
    try:
        loaded = load_config(config)
    except ConfigError as error:
        fail(str(error))
    try:
        from_s = cut_off(parse_duration(since)) if since is not None else None
    except ValueError as error:
        fail(f"--since {since!r}: {error}")
    if loaded.log.audit_file is None:
        fail('There is no audit trail: set log.audit_file in the configuration, such as "state/audit.jsonl".')
    for entry in read_trail(loaded.resolve(loaded.log.audit_file), loaded.log.audit_keep):
        if tenant is not None and entry.get("tenant") != tenant:
            continue
        if event is not None and entry.get("event") != event:
            continue
        if from_s is not None and not is_since(entry, from_s):
            continue
        typer.echo(orjson.dumps(entry).decode())

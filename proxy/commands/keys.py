"""`comfygate keys`: the file is edited in place; the key itself is shown once, as the last line of standard output."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from policy.principal import ALL_SCOPES, Role, Scope
from proxy.auth import key_file
from proxy.commands.exits import fail
from proxy.config.units import parse_duration

app = typer.Typer(
    name="keys",
    help="Make, list, revoke and rotate API keys in the configuration file.",
    no_args_is_help=True,
    add_completion=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
_DEFAULT = Path("config.toml")


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is; the tenant must stand in the file.")],
    role: Annotated[Role, typer.Option(help="An admin sees ComfyUI as it is.")] = Role.USER,
    expires: Annotated[str | None, typer.Option(help='How long it lives, such as "90d".')] = None,
    note: Annotated[str, typer.Option(help="For people; written beside the key.")] = "",
    scope: Annotated[list[Scope] | None, typer.Option(help="Narrow the key; may be given several times.")] = None,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Make a key. The LAST line of the output is the key; it is shown once and stored nowhere."""
    try:
        made = key_file.create_key(
            config,
            tenant=tenant,
            role=role,
            scopes=frozenset(scope) if scope else ALL_SCOPES,
            expires=_moment(expires),
            note=note,
        )
    except (key_file.KeyFileError, ValueError) as error:
        fail(str(error))
    typer.echo(f"Key {made.id} of tenant {tenant} is in {config}. Keep the next line, it is shown once:")
    typer.echo(made.text)


@app.command("list")
def list_(config: ConfigFile = _DEFAULT) -> None:
    """List the keys of the file."""
    try:
        keys = key_file.list_keys(config)
    except key_file.KeyFileError as error:
        fail(str(error))
    if not keys:
        typer.echo("There is no key: nobody gets in. Make one with `comfygate keys create --tenant NAME`.", err=True)
    now = datetime.now(UTC)
    rows = [("ID", "TENANT", "ROLE", "EXPIRES", "NOTE")] if keys else []
    for key in keys:
        end = "never" if key.expires is None else key.expires.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        if key.expires is not None and key.expires <= now:
            end = f"EXPIRED {end}"
        rows.append((key.id, key.tenant, key.role, end, key.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)] if rows else []
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], config: ConfigFile = _DEFAULT) -> None:
    """Remove a key. A running gate notices within a second."""
    try:
        gone = key_file.revoke_key(config, key_id)
    except key_file.KeyFileError as error:
        fail(str(error))
    typer.echo(f"Key {gone.id} of tenant {gone.tenant} is revoked.")


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    grace: Annotated[str, typer.Option(help='How long the old key still works, such as "24h".')] = "0s",
    expires: Annotated[str | None, typer.Option(help="How long the new key lives.")] = None,
    config: ConfigFile = _DEFAULT,
) -> None:
    """Replace a key by a new one with the same rights. The LAST line of the output is the new key."""
    try:
        made = key_file.rotate_key(config, key_id, grace_s=parse_duration(grace), expires=_moment(expires))
    except (key_file.KeyFileError, ValueError) as error:
        fail(str(error))
    typer.echo(f"Key {made.id} replaces {key_id}. Keep the next line, it is shown once:")
    typer.echo(made.text)


def _moment(expires: str | None) -> datetime | None:
    if expires is None:
        return None
    try:
        return key_file.expiry_after(parse_duration(expires))
    except ValueError as error:
        raise ValueError(f"--expires {expires}: {error}") from None

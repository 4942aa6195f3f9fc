"""The command line. Parses, calls, prints; the work is elsewhere."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from proxy.commands import audit, backup, check, connect, demo, init, keys, policy, routes, serve

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"comfygate {version('comfygate')}")
        raise typer.Exit


app = typer.Typer(
    name="comfygate",
    help="An authenticating reverse proxy with workflow policy enforcement for ComfyUI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(keys.app, name="keys", help="Make, list, revoke and rotate API keys in the configuration file.")
app.add_typer(policy.app, name="policy", help="Derive and try policies.")
app.command("init")(init.init)
app.command("serve")(serve.serve)
app.command("check")(check.check)
app.command("routes")(routes.routes)
app.command("audit")(audit.audit)
app.command("why")(audit.why)
app.command("backup")(backup.backup)
app.command("demo")(demo.demo)
app.command("connect")(connect.connect)


@app.callback()
def options(
    is_version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """An authenticating reverse proxy with workflow policy enforcement for ComfyUI."""


def main() -> None:
    app()

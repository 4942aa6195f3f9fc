"""The command line. Parses, calls, prints; the work is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from proxy.commands.loading import load

# Each in a module of proxy/commands: a function, or a command line of its own with more commands.
_COMMANDS: Final = {
    "keys": "keys.app",
    "policy": "policy.app",
    "init": "init.init",
    "serve": "serve.serve",
    "check": "check.check",
    "routes": "routes.routes",
    "audit": "audit.audit",
    "why": "audit.why",
    "jobs": "jobs.app",
    "comfyui": "comfyui.app",
    "functions": "functions.app",
    "webhooks": "webhooks.app",
    "storage": "storage.app",
    "backup": "backup.backup",
    "demo": "demo.demo",
    "connect": "connect.connect",
}


class _Commands(Mapping[str, Any]):
    """The commands by name, each loaded when it is looked up: a running gate holds nothing of the others (tests/commands/test_footprint.py)."""

    def __getitem__(self, name: str) -> Any:
        found = load(*_COMMANDS[name].split("."))
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        return typer.main.get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _OnDemand(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": _Commands()})


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"comfygate {version('comfygate')}")
        raise typer.Exit


app = typer.Typer(
    name="comfygate",
    cls=_OnDemand,
    help="An authenticating reverse proxy with workflow policy enforcement for ComfyUI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    is_version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """An authenticating reverse proxy with workflow policy enforcement for ComfyUI."""

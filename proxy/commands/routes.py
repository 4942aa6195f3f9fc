"""`comfygate routes`: every row that a configuration makes, with where it comes from and who may."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from policy.custom_routes import Kind
from policy.routes import AdminOnly, Deny, PassThrough, RelayWebSocket, Route, TenantRule
from proxy.commands.exits import fail
from proxy.compiled_config import build_table
from proxy.config import ConfigError, load_config


def routes(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
    is_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
) -> None:
    """List the routes that this configuration opens: ComfyUI's own, of packs, and single ones."""
    try:
        table = build_table(load_config(config))
    except ConfigError as error:
        fail(str(error))
    rows = [describe(route) for route in table.routes]
    if is_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    columns = ("method", "path", "kind", "from", "who", "note")
    lines = [{name: name for name in columns}, *rows]
    widths = {name: max(len(str(row[name])) for row in lines) for name in columns}
    for row in lines:
        typer.echo("  ".join(str(row[name]).ljust(widths[name]) for name in columns).rstrip())


def describe(route: Route) -> dict[str, Any]:
    """`method`, `path` as it is asked upstream, `also` its other spellings, `kind`, `from`, `who` may, `scope`, `budget`, `note`."""
    first, *others = route.prefix.value
    return {
        "method": route.method,
        "path": f"{first}{route.path}",
        "also": [f"{prefix}{route.path}" for prefix in others],
        "kind": route.kind or _kind_of(route.tenant),
        "from": route.origin,
        "who": _who(route),
        "scope": str(route.needs),
        "budget": str(route.budget),
        "note": route.note,
    }


def _kind_of(rule: TenantRule) -> str:
    """Of ComfyUI's own routes, which docs/routes.md describes one by one."""
    match rule:
        case AdminOnly():
            return "admin"
        case Deny():
            return "never"
        case PassThrough():
            return "shared"
        case RelayWebSocket():
            return "events"
        case _:
            return "own"


def _who(route: Route) -> str:
    if route.kind == Kind.NEVER:
        return "nobody"
    if not isinstance(route.tenant, AdminOnly | Deny):
        return "tenants"
    return "nobody" if isinstance(route.admin, Deny) else "admins"

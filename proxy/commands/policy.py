"""`comfygate policy`: derive an allow-list from workflows, try a workflow against a tenant's policy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from policy.compiled_policy import Policy
from policy.judge import judge
from policy.learn import explain
from policy.learn import learn as derive
from policy.principal import TenantId
from policy.violation import Violation
from proxy.commands.catalogue import ask_catalogue
from proxy.commands.exits import fail
from proxy.compiled_config import compile_policies
from proxy.config import ConfigError, load_config

app = typer.Typer(name="policy", help="Derive and try policies.", no_args_is_help=True, add_completion=False)


@app.command()
def learn(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Workflows in API format.")],
    tenant: Annotated[
        str | None, typer.Option(help="Only what its policy does not permit yet; the rest as comments.")
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """Print an allow-list for the workflows given (export them with "Export (API)").

    What the policy permits already stands there as comments: that of --tenant, or of the only tenant of the configuration.
    """
    policy = _policy_of(config, tenant)
    try:
        documents = [_read(file) for file in files]
        typer.echo(derive(documents) if policy is None else derive(documents, policy.permits))
    except (ValueError, Violation) as error:
        fail(error.message if isinstance(error, Violation) else str(error))


@app.command("test")
def try_out(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A workflow in API format, or a whole /prompt body.")],
    tenant: Annotated[str, typer.Option(help="Whose policy judges.")],
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
) -> None:
    """Judge a workflow and explain. Exit 0 when it may run, 1 when not."""
    try:
        loaded = load_config(config)
        policies = compile_policies(loaded)
    except ConfigError as error:
        fail(str(error))
    if TenantId(tenant) not in loaded.tenants:
        fail(f"There is no [tenants.{tenant}] in {config}.")
    document = _read(file)
    body = document if isinstance(document, dict) and "prompt" in document else {"prompt": document}
    catalogue = asyncio.run(ask_catalogue(loaded, "to judge a workflow"))
    try:
        judged = judge(orjson.dumps(body), policies[loaded.tenants[tenant].policy], catalogue)
    except Violation as violation:
        fail(explain(violation))
    typer.echo(explain(judged))


def _policy_of(config: Path, tenant: str | None) -> Policy | None:
    """None where no policy is meant: nobody is named, and there is no configuration or more than one tenant."""
    if tenant is None and not config.exists():
        return None
    try:
        loaded = load_config(config)
        policies = compile_policies(loaded)
    except ConfigError as error:
        fail(str(error))
    if tenant is None and len(loaded.tenants) != 1:
        return None
    name = tenant or next(iter(loaded.tenants))
    if name not in loaded.tenants:
        fail(f"There is no [tenants.{name}] in {config}.")
    return policies[loaded.tenants[TenantId(name)].policy]


def _read(file: Path) -> Any:
    try:
        return orjson.loads(file.read_bytes())
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror or error}")
    except orjson.JSONDecodeError as error:
        fail(f"{file} is not JSON: {error}")

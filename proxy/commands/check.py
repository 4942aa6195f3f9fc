"""`comfygate check`: validates the configuration, lints policies against ComfyUI, warns of what is dangerous. Exit 0 or 1."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.check_comfyuis import ask_comfyuis, is_loopback
from proxy.commands.check_functions import find_refused
from proxy.commands.exits import fail
from proxy.compiled_config import CompiledConfig, compile_config
from proxy.config import Config, ConfigError, load_config
from proxy.conversion.trial import try_formats
from proxy.copies.bucket import BucketFailed, ObjectGone
from proxy.copies.opening import open_bucket
from proxy.limits.limits import try_storage
from proxy.persistence.chosen import try_database
from proxy.systemd import take_sockets
from proxy.upstream.aliases import find_aliases


def check(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("config.toml"),
    is_whole: Annotated[bool, typer.Option("--all", help="Name every class, also where many are alike.")] = False,
) -> None:
    """Validate the configuration file. Exit 0 when the gate would run with it, 1 when not."""
    try:
        loaded = load_config(config)
        take_sockets(loaded)
        with tempfile.TemporaryDirectory() as scratch:
            # Nothing is made in the real state folder by a mere check.
            server = loaded.server.model_copy(update={"state_dir": Path(scratch)})
            compiled = compile_config(loaded.model_copy(update={"server": server}))
        told = asyncio.run(try_database(loaded))
    except ConfigError as error:
        fail(str(error))
    warnings = [*_warnings_of(loaded), *find_refused(compiled), *told]
    warnings += asyncio.run(_ask_store(loaded))
    warnings += asyncio.run(_ask_bucket(loaded))
    told_by_comfyui = asyncio.run(ask_comfyuis(loaded, is_whole=is_whole))
    warnings += told_by_comfyui.warnings
    warnings += asyncio.run(find_aliases(loaded))
    warnings += asyncio.run(_ask_issuers(compiled))
    formats = {name for function in compiled.functions.values() for name in function.formats}
    warnings += asyncio.run(try_formats(formats)) if formats else []
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    for fact in told_by_comfyui.facts:
        typer.echo(fact)
    typer.echo(f"{config} is good: {_count(len(loaded.tenants), 'tenant')}, {_count(len(loaded.keys), 'key')}.")


def _warnings_of(config: Config) -> list[str]:
    found = []
    if not config.keys and not config.jwt and config.cloudflare_access is None:
        found.append("there is no key and no token issuer: nobody gets in. Make a key with `comfygate keys create`")
    if config.storage.keep_local is not None and config.upstream.directory is None:
        found.append(
            "storage.keep_local wipes nothing: set upstream.directory, else the gate does not see ComfyUI's folders"
        )
    if not is_loopback(config.ops.host):
        found.append(f"ops.host {config.ops.host} is not loopback: health and metrics are open to that network")
    if not is_loopback(config.server.host):
        found.append(
            f"server.host {config.server.host} is not loopback: without TLS in front, keys cross that network in clear"
        )
    if config.server.public_url is None and (
        config.webhooks or any(each.call_webhooks for each in config.tenants.values())
    ):
        found.append("server.public_url is not set: the links in webhooks have no host")
    return found


async def _ask_store(config: Config) -> list[str]:
    """Whether Redis answers, where it is to hold the limits. Ends the command for an address that cannot be read."""
    try:
        fault = await try_storage(config)
    except (OSError, ValueError) as error:
        fail(f"{config.file}: limits.storage_file: {error}")
    return [] if fault is None else [fault]


async def _ask_bucket(config: Config) -> list[str]:
    """Looks for an object that is not there: who may look is told so, and nothing is written."""
    if not config.storage.is_on:
        return []
    bucket = open_bucket(config)
    try:
        await bucket.size_of("comfygate-check")
    except ObjectGone:
        return []
    except BucketFailed as error:
        return [
            f"{bucket.place} cannot be looked into ({error}): results stay in ComfyUI's folder until it can. `comfygate storage test` tells more"
        ]
    return []


async def _ask_issuers(compiled: CompiledConfig) -> list[str]:
    """Fetches the keys of every issuer, as the gate would at its start: what it cannot read it refuses every token of."""
    logging.getLogger("comfygate").addHandler(logging.NullHandler())  # the warning below says it once
    key_sets = [jwks for verifier in (compiled.tokens, compiled.access) if verifier for jwks in verifier.key_sets]
    failures = await asyncio.gather(*(jwks.try_once() for jwks in key_sets))
    for jwks in key_sets:
        await jwks.stop()
    return [
        f"the issuer's keys at {jwks.shown_url} cannot be read ({failure}): every token of this issuer is refused until they can"
        for jwks, failure in zip(key_sets, failures, strict=True)
        if failure is not None
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

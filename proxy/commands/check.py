"""`comfygate check`: validates the configuration, lints policies against ComfyUI, warns of what is dangerous. Exit 0 or 1."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from policy.call import Opaque, UpstreamCall
from policy.catalogue import Catalogue, read_catalogue
from policy.lint import Finding, lint, summarize
from proxy.commands.closed_routes import find_closed
from proxy.commands.exits import fail
from proxy.compiled_config import CompiledConfig, compile_config
from proxy.config import Config, ConfigError, load_config
from proxy.config.presets import load_excluded, load_presets
from proxy.conversion.trial import try_formats
from proxy.copies.bucket import BucketFailed, ObjectGone
from proxy.copies.opening import open_bucket
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, unreachable
from proxy.limits.limits import try_storage
from proxy.persistence.chosen import try_database
from proxy.systemd import take_sockets
from proxy.upstream.client import Upstream

TESTED_FROM = (0, 3, 64)
_TIME_LIMIT_S = 60.0


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
    warnings = [*_warnings_of(loaded), *told]
    warnings += asyncio.run(_ask_store(loaded))
    warnings += asyncio.run(_ask_bucket(loaded))
    warnings += asyncio.run(_ask_upstream(loaded, is_whole))
    warnings += asyncio.run(_ask_issuers(compiled))
    formats = {name for function in compiled.functions.values() for name in function.formats}
    warnings += asyncio.run(try_formats(formats)) if formats else []
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{config} is good: {_count(len(loaded.tenants), 'tenant')}, {_count(len(loaded.keys), 'key')}.")


def _warnings_of(config: Config) -> list[str]:
    found = []
    if not config.keys and not config.jwt and config.cloudflare_access is None:
        found.append("there is no key and no token issuer: nobody gets in. Make a key with `comfygate keys create`")
    if config.storage.keep_local is not None and config.upstream.directory is None:
        found.append(
            "storage.keep_local wipes nothing: set upstream.directory, else the gate does not see ComfyUI's folders"
        )
    if not _is_loopback(config.ops.host):
        found.append(f"ops.host {config.ops.host} is not loopback: health and metrics are open to that network")
    if not _is_loopback(config.server.host):
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


async def _ask_upstream(config: Config, is_whole: bool) -> list[str]:
    upstream = Upstream(config.upstream.url, config.upstream.connect_timeout)
    try:
        stats = await upstream.ask(UpstreamCall("GET", (Opaque("system_stats"),)), time_limit_s=_TIME_LIMIT_S)
        info = await upstream.ask(UpstreamCall("GET", (Opaque("object_info"),)), time_limit_s=_TIME_LIMIT_S)
        swaps = await upstream.ask(UpstreamCall("GET", (Opaque("node_replacements"),)), time_limit_s=_TIME_LIMIT_S)
        closed = await find_closed(config, upstream)
    except (UpstreamUnavailable, UpstreamTimeout) as error:
        told = "Policies were not compared with its nodes, nor routes with what its custom nodes call"
        return [f"{unreachable(config.upstream.url, error)} {told}"]
    finally:
        await upstream.stop()
    found = _about_comfyui(stats.value)
    catalogue = read_catalogue(info.value)
    return found + _lint(config, catalogue, swaps.value, is_whole=is_whole) + closed


def _lint(config: Config, catalogue: Catalogue, replacements: Any, *, is_whole: bool) -> list[str]:
    presets = load_presets()
    found: list[Finding] = []
    for name in sorted({tenant.policy for tenant in config.tenants.values()}):
        found += lint(name, config.policies, presets, catalogue, replacements, excluded=load_excluded())
    return [f"{finding.key}: {finding.message}" for finding in found] if is_whole else summarize(found)


def _about_comfyui(stats: Any) -> list[str]:
    """What /system_stats tells: who can reach ComfyUI without the gate, what it can install, how old it is."""
    system = stats.get("system") if isinstance(stats, dict) else None
    if not isinstance(system, dict):
        return ["ComfyUI does not tell its version: is it ComfyUI that answers at upstream.url?"]
    found = []
    arguments = [str(part) for part in system.get("argv") or ()]
    listens = _listen_address(arguments)
    if listens is not None and not all(_is_loopback(part.strip()) for part in listens.split(",")):
        found.append(f"ComfyUI listens on {listens}: anybody there bypasses the gate. Start it with --listen 127.0.0.1")
    options = {argument.partition("=")[0] for argument in arguments}
    if "--enable-manager" in options:
        found.append("ComfyUI runs with its Manager, which installs code. Start it without --enable-manager")
    if "--enable-cors-header" in options:
        found.append("ComfyUI runs with --enable-cors-header, which switches its origin check off. Start it without")
    version = str(system.get("comfyui_version", ""))
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if len(numbers) >= 2 and numbers < TESTED_FROM:
        found.append(f"ComfyUI {version} is older than what the gate was tested with (0.3.64)")
    return found


def _listen_address(arguments: list[str]) -> str | None:
    """The value of --listen: absent means loopback, without a value it means every address (comfy/cli_args.py)."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--listen="):
            return argument.partition("=")[2]
        if argument == "--listen":
            following = arguments[index + 1] if index + 1 < len(arguments) else "--"
            return "0.0.0.0,::" if following.startswith("--") else following
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

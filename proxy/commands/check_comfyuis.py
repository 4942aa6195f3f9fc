"""What `comfygate check` finds out of ComfyUI itself: of each of them, where there are several."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from policy.call import Opaque, UpstreamCall
from policy.catalogue import Catalogue, read_catalogue
from policy.comparison import compare
from policy.lint import Finding, lint, summarize
from policy.merging import merge
from proxy.commands.catalogue import setting_of
from proxy.commands.closed_routes import find_closed
from proxy.compiled_config import read_pinned
from proxy.config import Config
from proxy.config.comfyui import ComfyUISettings
from proxy.config.presets import load_excluded, load_presets
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, unreachable
from proxy.upstream.client import Upstream

TESTED_FROM: Final = (0, 3, 64)
_TIME_LIMIT_S: Final = 60.0
_NOT_COMPARED: Final = "Policies were not compared with its nodes, nor routes with what its custom nodes call"


class Told(NamedTuple):
    """warnings: of what is dangerous or missing. facts: worth knowing."""

    warnings: list[str]
    facts: list[str]


class _Answer(NamedTuple):
    """Of one ComfyUI. catalogue: None of one that does not answer. closed: what of its web UI is dead."""

    warnings: list[str]
    catalogue: Catalogue | None = None
    version: str = ""
    replacements: Any = None
    closed: tuple[str, ...] = ()


async def ask_comfyuis(config: Config, *, is_whole: bool) -> Told:
    """is_whole: name every class, also where many are alike."""
    first, *others = config.comfyuis
    answers = await asyncio.gather(
        _ask(config, first, is_first=True), *(_ask(config, other, is_first=False) for other in others)
    )
    warnings = answers[0].warnings
    if others:
        warnings = [
            f"{comfyui.name}: {warning}"
            for comfyui, answer in zip(config.comfyuis, answers, strict=True)
            for warning in answer.warnings
        ]
    known = {
        comfyui.name: answer.catalogue
        for comfyui, answer in zip(config.comfyuis, answers, strict=True)
        if answer.catalogue is not None
    }
    if known:
        replacements = next(answer.replacements for answer in answers if answer.catalogue is not None)
        union = merge(list(known.values())).catalogue
        warnings = [*warnings, *_lint(config, union, replacements, is_whole=is_whole), *answers[0].closed]
    facts = _facts(config, answers, known, is_whole=is_whole) if others else []
    return Told(warnings, facts)


def _facts(config: Config, answers: list[_Answer], known: dict[str, Catalogue], *, is_whole: bool) -> list[str]:
    facts = [
        f"{comfyui.name}: ComfyUI {answer.version or 'of an unknown version'} at {comfyui.url} has {len(answer.catalogue.classes)} classes."
        for comfyui, answer in zip(config.comfyuis, answers, strict=True)
        if answer.catalogue is not None
    ]
    return facts + compare(known, is_whole=is_whole)


async def _ask(config: Config, comfyui: ComfyUISettings, *, is_first: bool) -> _Answer:
    upstream = Upstream(comfyui.url, config.upstream.connect_timeout)
    try:
        stats, info, swaps = [
            (await upstream.ask(UpstreamCall("GET", (Opaque(path),)), time_limit_s=_TIME_LIMIT_S)).value
            for path in ("system_stats", "object_info", "node_replacements")
        ]
        closed = await find_closed(config, upstream) if is_first else []
    except (UpstreamUnavailable, UpstreamTimeout) as error:
        words = unreachable(comfyui.url, error, setting_of(config))
        return _Answer([f"{words} {_NOT_COMPARED}" if is_first else words])
    finally:
        await upstream.stop()
    is_elsewhere = len(config.comfyuis) > 1 and not is_loopback(urlsplit(comfyui.url).hostname or "")
    warnings = about_comfyui(stats, is_elsewhere=is_elsewhere)
    return _Answer(warnings, read_catalogue(info), _version_of(stats), swaps, tuple(closed))


def _lint(config: Config, catalogue: Catalogue, replacements: Any, *, is_whole: bool) -> list[str]:
    presets, excluded, pinned = load_presets(), load_excluded(), read_pinned(config, [])
    found: list[Finding] = []
    for name in sorted({tenant.policy for tenant in config.tenants.values()}):
        found += lint(
            name, config.policies, presets, catalogue, replacements, pinned_documents=pinned, excluded=excluded
        )
    return [f"{finding.key}: {finding.message}" for finding in found] if is_whole else summarize(found)


def _version_of(stats: Any) -> str:
    system = stats.get("system") if isinstance(stats, dict) else None
    return str(system.get("comfyui_version", "")) if isinstance(system, dict) else ""


def about_comfyui(stats: Any, *, is_elsewhere: bool = False) -> list[str]:
    """What /system_stats tells: who can reach ComfyUI without the gate, what it can install, how old it is. is_elsewhere: the gate reaches it over a
    network, so that it has to listen there."""
    system = stats.get("system") if isinstance(stats, dict) else None
    if not isinstance(system, dict):
        return ["ComfyUI does not tell its version: is it ComfyUI that answers at upstream.url?"]
    found = []
    arguments = [str(part) for part in system.get("argv") or ()]
    listens = listen_address(arguments)
    if listens is not None and not all(is_loopback(part.strip()) for part in listens.split(",")):
        advice = "Let nobody but the gate reach it" if is_elsewhere else "Start it with --listen 127.0.0.1"
        found.append(f"ComfyUI listens on {listens}: anybody there bypasses the gate. {advice}")
    options = {argument.partition("=")[0] for argument in arguments}
    if "--enable-manager" in options:
        found.append("ComfyUI runs with its Manager, which installs code. Start it without --enable-manager")
    if "--enable-cors-header" in options:
        found.append("ComfyUI runs with --enable-cors-header, which switches its origin check off. Start it without")
    version = _version_of(stats)
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if len(numbers) >= 2 and numbers < TESTED_FROM:
        found.append(f"ComfyUI {version} is older than what the gate was tested with (0.3.64)")
    return found


def listen_address(arguments: list[str]) -> str | None:
    """The value of --listen: absent means loopback, without a value it means every address (comfy/cli_args.py)."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--listen="):
            return argument.partition("=")[2]
        if argument == "--listen":
            following = arguments[index + 1] if index + 1 < len(arguments) else "--"
            return "0.0.0.0,::" if following.startswith("--") else following
    return None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""What of the web UI is dead for want of rows: the packs whose scripts ComfyUI lists, and what these scripts call, beside the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from policy.call import Opaque, UpstreamCall
from policy.custom_routes import PackSettings
from policy.route_kinds import make_routes
from policy.routes import RouteTable
from policy.script_calls import closed_calls, find_calls
from proxy.compiled_config import build_table
from proxy.config import Config
from proxy.config.packs import load_packs
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream.client import Upstream

MAX_SCRIPTS: Final = 1000
MAX_SCRIPT_BYTES: Final = 4 * 1024**2
AT_ONCE: Final = 8
MAX_NAMED: Final = 6
_TIME_LIMIT_S: Final = 30.0
_CORE: Final = "core"

Scripts = dict[str, list[str]]


async def find_closed(config: Config, upstream: Upstream) -> list[str]:
    """In sentences, each with the line that opens what it names. Raises UpstreamUnavailable, UpstreamTimeout."""
    listed = await upstream.ask(UpstreamCall("GET", (Opaque("extensions"),)), time_limit_s=_TIME_LIMIT_S)
    scripts = _by_folder(listed.value)
    packs = load_packs()
    installed = [name for name, pack in packs.items() if _folder_of(pack, scripts) is not None]
    closed = [name for name in installed if name not in config.upstream.packs]
    found = [_pack_words(closed, packs, config)] if closed else []
    table = _with_packs(config, closed, packs)
    for folder, calls in (await _calls_of(upstream, scripts, packs)).items():
        unknown = [*closed_calls(table, calls)]
        if unknown:
            found.append(_call_words(folder, unknown))
    return found


def _by_folder(listed: Any) -> Scripts:
    """`/extensions/<folder>/…` by folder, without the web UI's own."""
    scripts: Scripts = {}
    for path in listed if isinstance(listed, list) else ():
        parts = path.split("/") if isinstance(path, str) else []
        if len(parts) > 3 and parts[1] == "extensions" and parts[2] != _CORE:
            scripts.setdefault(parts[2], []).append(path)
    return scripts


def _folder_of(pack: PackSettings, scripts: Scripts) -> str | None:
    """People clone a pack under a name of other letters."""
    names = {name.casefold() for name in pack.folders}
    return next((folder for folder in scripts if folder.casefold() in names), None)


def _pack_words(names: Sequence[str], packs: Mapping[str, PackSettings], config: Config) -> str:
    titles = ", ".join(packs[name].title for name in names)
    named = ", ".join(f'"{name}"' for name in (*config.upstream.packs, *names))
    return (
        f"upstream.packs: the routes of {titles} are closed, so parts of their pages are dead. "
        f"packs = [{named}] opens what docs/packs.md lists of them"
    )


def _call_words(folder: str, paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:MAX_NAMED]) + (f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else "")
    return (
        f"routes: scripts of {folder} name {shown}, for which there is no row. That was found by reading them: some may never be called, "
        "and a call that is put together of parts is not seen. Where you know what one does, [[routes]] opens it (docs/custom-nodes.md)"
    )


def _with_packs(config: Config, names: Sequence[str], packs: Mapping[str, PackSettings]) -> RouteTable:
    """The table as it would be with these packs too: what they would open is told once."""
    more = [route for name in names for row in packs[name].routes for route in make_routes(row, name)]
    return RouteTable((*build_table(config).routes, *more))


async def _calls_of(upstream: Upstream, scripts: Scripts, packs: Mapping[str, PackSettings]) -> Mapping[str, set[str]]:
    known = {row.first for pack in packs.values() for row in pack.routes}
    places = asyncio.Semaphore(AT_ONCE)

    async def read(path: str) -> set[str]:
        segments = tuple(map(Opaque, path.strip("/").split("/")))
        try:
            async with places:
                call = UpstreamCall("GET", segments)
                reply = await upstream.ask(call, time_limit_s=_TIME_LIMIT_S, max_bytes=MAX_SCRIPT_BYTES)
        except (UpstreamUnavailable, UpstreamTimeout):
            return set()  # one that is too large, or not there: nothing is said of it
        return find_calls(reply.body.decode("utf-8", "replace"), path, known) if reply.status == 200 else set()

    pairs = [(folder, path) for folder, paths in sorted(scripts.items()) for path in paths][:MAX_SCRIPTS]
    read_calls = await asyncio.gather(*(read(path) for _, path in pairs))
    calls: dict[str, set[str]] = {}
    for (folder, _), found in zip(pairs, read_calls, strict=True):
        calls.setdefault(folder, set()).update(found)
    return calls

"""A pack of custom nodes in the stand-in: classes of its own, and routes beside ComfyUI's. Tests bring them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from standin.catalogue import CATALOGUE
from standin.folders import Folders
from standin.nodes import RUNNERS
from standin.nodes.runner import Runner
from standin.specs import NodeSpec


@dataclass(frozen=True)
class Pack:
    """routes: as its author writes them; the stand-in doubles them under /api as ComfyUI does. scripts: paths that `/extensions` lists, with their text."""

    routes: Callable[[Folders], list[web.RouteDef]]
    specs: Sequence[NodeSpec]
    runners: Mapping[str, type[Runner]]
    scripts: Mapping[str, str]

    def install(self) -> None:
        CATALOGUE.update({spec.name: spec for spec in self.specs})
        RUNNERS.update(self.runners)

    def remove(self) -> None:
        for spec in self.specs:
            CATALOGUE.pop(spec.name, None)
            RUNNERS.pop(spec.name, None)

    def script_routes(self) -> list[web.RouteDef]:
        return [web.get(path, _script(text)) for path, text in self.scripts.items()]


def _script(text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/javascript")

    return answer

"""The stand-in itself: a real HTTP and WebSocket server with ComfyUI 0.33's API, for the demo and for tests.

It trusts its clients as ComfyUI does, so it listens on loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from standin.engine import Engine
from standin.events import FEATURES, SocketFrame
from standin.files import FileRoutes
from standin.folders import Folders
from standin.internal import InternalRoutes
from standin.joblists import HistoryRoutes, JobListRoutes
from standin.jobroutes import JobRoutes
from standin.middleware import Received, Recorder, check_origin, set_cache_headers
from standin.models import ModelRoutes
from standin.pack import Pack
from standin.pages import OWN_PAGES, Memory, PageRoutes, web_root
from standin.userdata import UserDataRoutes
from standin.users import SettingsRoutes, UserRoutes

MAX_BODY_BYTES: int = FEATURES["max_upload_size"]
FILE_THREADS = 2


class StandIn:
    """`received` and `sockets_received` hold what clients sent, oldest first."""

    def __init__(self, base_directory: Path, *, frontend: bool = True, pack: Pack | None = None) -> None:
        """pack: of custom nodes."""
        self.host = "127.0.0.1"
        self.port = 0
        self.alive = False
        self.folders = Folders(base_directory)
        self.memory = Memory()
        self._root = web_root(has_frontend=frontend)
        self._recorder = Recorder(MAX_BODY_BYTES)
        self._engine: Engine | None = None
        self._runner: web.AppRunner | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._frames: list[SocketFrame] = []
        self._pack = pack

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def received(self) -> list[Received]:
        return self._recorder.received

    @property
    def sockets_received(self) -> list[SocketFrame]:
        return self._frames

    @property
    def worker_alive(self) -> bool:
        return self._engine is not None and self._engine.life.worker.is_alive

    @property
    def unpublished(self) -> int:
        """Events that the publisher has not sent yet."""
        return 0 if self._engine is None else self._engine.events.unpublished

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; port 0 picks a free one. OSError when the port is taken. May be called again after `stop`."""
        self._pool = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="standin-files")
        await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare_folders)
        if self._pack is not None:
            self._pack.install()
        self._engine = Engine(self.folders, self._frames)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            self._pool.shutdown()
            raise
        self.host, self.port = host, self._runner.addresses[0][1]
        self._engine.start()
        self._engine.log("Starting server")
        self.alive = True

    def _prepare_folders(self) -> None:
        self.folders.create()
        self.folders.empty_temp()

    async def stop(self) -> None:
        """Ends the running job, the websockets, the worker and the listener; files stay."""
        self.alive = False
        if self._engine is not None:
            await self._engine.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._pool is not None:
            self._pool.shutdown()
        if self._pack is not None:
            self._pack.remove()
        self._engine = self._runner = self._pool = None

    def restart_state(self) -> None:
        """Loses what a restart of ComfyUI loses: queue, history, counter, running job, websockets, temp files."""
        if self._engine is not None:
            self._engine.reset()

    def _application(self) -> web.Application:
        assert self._engine is not None
        assert self._pool is not None
        app = web.Application(
            client_max_size=MAX_BODY_BYTES,
            middlewares=[self._recorder.middleware, set_cache_headers, check_origin],
        )
        engine = self._engine
        pages = PageRoutes(
            self.folders,
            self._root,
            ["main.py", "--base-directory", self.folders.base],
            self.memory,
            scripts=list(self._pack.scripts) if self._pack is not None else [],
        )
        doubled = [
            web.get("/ws", self._websocket),
            *pages.routes(),
            *JobRoutes(engine).routes(),
            *HistoryRoutes(engine).routes(),
            *JobListRoutes(engine).routes(),
            *FileRoutes(self.folders, self._pool).routes(),
            *ModelRoutes(self.folders).routes(),
            *UserDataRoutes(self.folders, self._pool).routes(),
            *SettingsRoutes(self.folders).routes(),
            *UserRoutes(self.folders).routes(),
            *(self._pack.routes(self.folders) if self._pack is not None else ()),
        ]
        internal = web.Application()
        internal.add_routes(InternalRoutes(engine).routes())
        app.add_routes(pages.undoubled_routes())
        app.add_subapp("/internal", internal)
        app.add_routes([web.route(route.method, f"/api{route.path}", route.handler) for route in doubled])
        app.add_routes(doubled)
        app.add_routes(self._pack.script_routes() if self._pack is not None else [])
        app.add_routes([web.static("/docs", OWN_PAGES / "docs"), web.static("/", self._root)])
        return app

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        assert self._engine is not None
        return await self._engine.events.handle(request)

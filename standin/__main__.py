"""`python -m standin --port 8188 --base-directory DIR` runs the stand-in until it is interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

from standin.server import StandIn


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    standin = StandIn(options.base_directory, frontend=options.frontend)
    await standin.start(options.host, options.port)
    print(
        f"This is a stand-in for ComfyUI, not ComfyUI: same API, small image workflows, no models.\n"
        f"It listens on {standin.url} and keeps its files in {standin.folders.base}",
        flush=True,
    )
    try:
        await stop.wait()
    finally:
        await standin.stop()


async def run(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m standin", description="A stand-in for ComfyUI 0.33.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188, help="0 picks a free one")
    parser.add_argument("--base-directory", type=Path, required=True, help="input, output, temp, user and models")
    parser.add_argument("--no-frontend", dest="frontend", action="store_false", help="never serve ComfyUI's web UI")
    options = parser.parse_args(arguments)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
            loop.add_signal_handler(number, stop.set)
    await serve(options, stop)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())

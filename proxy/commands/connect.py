"""`comfygate connect`: a remote gate as if it were a ComfyUI on this machine, for programs that cannot send a key."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web

from proxy.commands.exits import Exit, fail
from proxy.commands.serve import run, stop_event
from proxy.forwarder import HOST, Forwarder, UnsafeGate
from proxy.listeners import Listener, ListenError

_PORT = 8188


def connect(
    url: Annotated[str, typer.Argument(help="The gate's address, as in https://comfy.example.com.")],
    port: Annotated[int, typer.Option(help="Where to listen on this machine; 0 picks a free one.")] = _PORT,
    key_file: Annotated[
        Path | None, typer.Option(help="The file with the key; else the environment variable COMFYGATE_KEY.")
    ] = None,
) -> None:
    """Make a remote gate look like a ComfyUI on this machine, for programs that cannot send a key."""
    key = _read_key(key_file)
    try:
        forwarder = Forwarder(url, key)
        run(lambda: _connect(forwarder, url, port))
    except UnsafeGate as error:
        fail(str(error))
    except ListenError as error:
        fail(str(error).replace("change --port in config.toml", "give another --port"), Exit.PORT_IN_USE)


async def _connect(forwarder: Forwarder, url: str, port: int) -> None:
    await serve_until(forwarder, url, port, stop_event())


async def serve_until(forwarder: Forwarder, url: str, port: int, stop: asyncio.Event) -> None:
    """Listens until `stop` is set. Raises ListenError."""
    await forwarder.start()
    listener = Listener(web.Server(forwarder.handle, access_log=None), HOST, port, "--port")
    try:
        await listener.start()
        typer.echo(f"{listener.url} is {url} now, for programs on this machine. Press Ctrl+C to end it.")
        await stop.wait()
        await listener.stop_accepting()
    finally:
        await listener.stop()
        await forwarder.stop()


def _read_key(key_file: Path | None) -> str:
    """Never an argument: every user of the machine sees the arguments of all programs."""
    if key_file is None:
        key = os.environ.get("COMFYGATE_KEY", "")
    else:
        try:
            key = key_file.read_text(encoding="ascii")
        except (OSError, UnicodeError) as error:
            fail(f"{key_file} cannot be read: {error}")
    if not key.strip():
        fail("Put the key into the environment variable COMFYGATE_KEY, or into a file and name it with --key-file.")
    return key.strip()

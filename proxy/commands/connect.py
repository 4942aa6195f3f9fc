"""`comfygate connect`: a remote gate as if it were a ComfyUI on this machine, for programs that cannot send a key."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.connect_access import LOOPBACK, LocalAccess
from proxy.commands.connect_proxy import HOST, ConnectProxy, UnsafeGate
from proxy.commands.exits import Exit, fail
from proxy.commands.serving import run, stop_event
from proxy.config.server import parse_origin
from proxy.http.listener import Listener, ListenError

_PORT = 8188


def connect(
    url: Annotated[str, typer.Argument(help="The gate's address, as in https://comfy.example.com.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen on this machine; 0 picks a free one.")
    ] = _PORT,
    key_file: Annotated[
        Path | None, typer.Option(help="The file with the key; else the environment variable COMFYGATE_KEY.")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="The address to listen on. Another than loopback lets everybody there act with the key.")
    ] = HOST,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name under which programs may call besides 127.0.0.1 and localhost.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page's origin that may act with the key, as in http://localhost:8000."),
    ] = None,
) -> None:
    """Make a remote gate look like a ComfyUI on this machine, for programs that cannot send a key."""
    key = read_key(key_file)
    hosts, origins = allow_host or [], [_origin(text) for text in allow_origin or []]
    try:
        forwarder = ConnectProxy(url, key, LocalAccess([*hosts, listen], origins))
        for warning in warnings_of(listen, hosts, origins):
            typer.echo(f"warning: {warning}", err=True)
        run(lambda: _connect(forwarder, url, port, listen))
    except UnsafeGate as error:
        fail(str(error))
    except ListenError as error:
        fail(str(error).replace("change --port in config.toml", "give another --port"), Exit.PORT_IN_USE)


def warnings_of(listen: str, hosts: list[str], origins: list[str]) -> list[str]:
    """What the options open, in a sentence each."""
    found = []
    if listen not in LOOPBACK:
        found.append(
            f"everybody who reaches {listen} acts with your key, and what they send crosses that network in clear. Let a firewall "
            "admit the one machine or container that you mean"
        )
        if not hosts:
            found.append("name the host that your clients call with --allow-host: every other name is refused")
    if hosts:
        found.append(
            f"programs that call {', '.join(hosts)} act with your key. A website whose name leads to this address could too, if it "
            "has one of these names"
        )
    if origins:
        found.append(f"every script on {', '.join(origins)} acts with your key and reads the answers")
    return found


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValueError as error:
        fail(f"--allow-origin {text}: {error}")


async def _connect(forwarder: ConnectProxy, url: str, port: int, listen: str) -> None:
    await serve_until(forwarder, url, port, stop_event(), listen)


async def serve_until(forwarder: ConnectProxy, url: str, port: int, stop: asyncio.Event, listen: str = HOST) -> None:
    """Listens until `stop` is set. Raises ListenError."""
    await forwarder.start()
    listener = Listener(forwarder.server(), listen, port, "--port")
    try:
        await listener.start()
        typer.echo(f"{listener.url} is {url} now, for programs on this machine. Press Ctrl+C to end it.")
        await stop.wait()
        await listener.stop_accepting()
    finally:
        await listener.stop()
        await forwarder.stop()


def read_key(key_file: Path | None) -> str:
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

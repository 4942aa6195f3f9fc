"""`comfygate demo`: a stand-in ComfyUI with the gate in front of it, two throw-away tenants, and commands to paste."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from proxy.app import Gate
from proxy.auth import key_file
from proxy.commands.exits import Exit, fail
from proxy.commands.serving import run, stop_event
from proxy.config import load_config
from proxy.config.server import check_upstream_url
from proxy.http.listener import ListenError
from proxy.observability.access_log import RequestLog, request_log, set_up_logging

_PORT = 8190
_TENANTS = ("alice", "bob")
_CONFIG = """\
# Made by `comfygate demo`; gone when it ends.
[server]
port = {port}

[ops]
port = {ops_port}

[upstream]
url = {upstream}

[tenants.alice]
[tenants.bob]

[policies.default]
allow = ["@core-image", "SlowProgress"]
"""
_WORDS = """
comfygate stands in front of {what}.

  gate          {url}
  web UI        {url}/gate/login   (log in with one of the keys)
  health        {ops}/readyz

  alice's key   {alice}
  bob's key     {bob}

Try it, in another terminal:

  # without a key: 401
  curl -i {url}/queue

  # alice runs a workflow
  curl -s {url}/prompt -H 'Authorization: Bearer {alice}' -d '{workflow}'

  # alice sees her job and its picture, bob sees neither
  curl -s {url}/history -H 'X-API-Key: {alice}'
  curl -s {url}/history -H 'X-API-Key: {bob}'
  curl -s '{url}/view?filename=demo_00001_.png' -H 'X-API-Key: {alice}' -o demo.png

  # a class that the policy does not permit: 403, and the node is named
  curl -s {url}/prompt -H 'Authorization: Bearer {alice}' -d '{{"prompt":{{"1":{{"class_type":"RunShellCommand","inputs":{{}}}}}}}}'

`comfygate demo --verbose` prints a line for each request. Why something was refused: {url}/gate/me, or `comfygate why` for a gate of your own.
Press Ctrl+C to end it.
"""
_WORKFLOW = (
    '{"prompt":{"1":{"class_type":"EmptyImage","inputs":{"width":256,"height":256,"batch_size":1,"color":3368601}},'
    '"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"demo"}}}}'
)


def demo(
    upstream: Annotated[str | None, typer.Option(help="A real ComfyUI instead of the stand-in.")] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the gate listens; another free port when this one is taken.")
    ] = _PORT,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each request.")] = False,
) -> None:
    """Start a stand-in ComfyUI and the gate in front of it, and print keys and commands to paste."""
    try:
        upstream = None if upstream is None else check_upstream_url(upstream)
    except ValueError as error:
        fail(f"--upstream: {error}")
    try:
        run(lambda: _demo(upstream, port, verbose))
    except ListenError as error:
        fail(str(error), Exit.PORT_IN_USE)


async def _demo(upstream: str | None, port: int, is_verbose: bool) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfygate-demo-")))
        what = f"ComfyUI at {upstream}"
        if upstream is None:
            upstream = await _start_stand_in(stack, folder / "comfyui")
            what = f"a stand-in ComfyUI at {upstream} (it truly runs small image workflows)"
        file = folder / "config.toml"
        file.write_text(
            _CONFIG.format(
                port=_free(port),
                ops_port=_free(port + 1000) if 0 < port <= 65535 - 1000 else 0,
                upstream=json.dumps(upstream),
            ),
            encoding="utf-8",
        )
        keys = {tenant: key_file.create_key(file, tenant=tenant, note="demo").text for tenant in _TENANTS}
        config = load_config(file, {})
        set_up_logging(config.log)
        logging.getLogger("comfygate").setLevel(logging.WARNING)
        gate = Gate(config, _request_log(stack, is_verbose))
        stop = stop_event()
        await gate.start()
        stack.push_async_callback(gate.stop)
        typer.echo(_WORDS.format(what=what, url=gate.public.url, ops=gate.ops.url, workflow=_WORKFLOW, **keys))
        await stop.wait()


def _request_log(stack: AsyncExitStack, is_verbose: bool) -> RequestLog:
    """The keys that were printed are what a person needs next: without being asked for, no request lines push them out of sight."""
    if is_verbose:
        return request_log("auto")
    return RequestLog(stack.enter_context(Path(os.devnull).open("wb")), "text")


async def _start_stand_in(stack: AsyncExitStack, folder: Path) -> str:
    try:
        from standin import StandIn
    except ImportError:
        fail('The stand-in needs Pillow: pip install "comfygate[demo]", or give --upstream URL.')
    stand_in = StandIn(folder)
    await stand_in.start()
    stack.push_async_callback(stand_in.stop)
    return stand_in.url


def _free(port: int) -> int:
    """The port, or 0 (any free one) when it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port

"""A real nginx: one that serves a gate below a path prefix, or whatever it is told to."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.deploy.files import DEPLOY
from tests.ports import free_port, free_ports

SHIPPED: Final = (DEPLOY / "docker" / "several" / "nginx.conf", DEPLOY / "kubernetes" / "nginx.conf")
"""Balancers before several gates."""
GATE_LINE: Final = re.compile(r"(?m)^( +server )\S+( max_fails)")
CONFIG = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 128; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
{location}
  }}
}}
"""
PAGE: Final = (DEPLOY.parent / "docs" / "operations.md").read_text(encoding="utf-8")


def location_of(prefix: str, gate: str) -> str:
    """What the page tells an operator to write, for this prefix and this gate."""
    shown = re.search(r"<!-- nginx: prefix -->\n```nginx\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    return shown[1].replace("/comfy", prefix).replace("http://127.0.0.1:8190", gate)


@asynccontextmanager
async def below_a_prefix(folder: Path, gate: str, prefix: str) -> AsyncIterator[str]:
    """The address of an nginx that serves the gate below the prefix, which it takes off."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = CONFIG.format(folder=folder, port=port, location=location_of(prefix, gate), user=user)
    async with running_nginx(folder, config, port):
        yield f"http://127.0.0.1:{port}{prefix}"


@asynccontextmanager
async def running_nginx(folder: Path, config: str, port: int) -> AsyncIterator[None]:
    """port: one that it listens at when it has started."""
    file = folder / "nginx.conf"
    file.write_text(config, encoding="utf-8")
    nginx = await asyncio.create_subprocess_exec("nginx", "-p", str(folder), "-c", str(file))
    try:
        async with asyncio.timeout(240):
            while not await _listens(port):
                assert nginx.returncode is None, "nginx has ended"
        yield
    finally:
        nginx.terminate()
        await nginx.wait()


@asynccontextmanager
async def balanced(folder: Path, gates: list[str]) -> AsyncIterator[tuple[str, str]]:
    """The addresses of the two servers of the shipped configuration, for the tunnel and for programs here. gates: host and port."""
    text = SHIPPED[0].read_text(encoding="utf-8")
    places = iter(gates)
    text = GATE_LINE.sub(lambda found: f"{found[1]}{next(places)}{found[2]}", text)
    tunnel, local = free_ports(2)
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{tunnel};").replace(
        "listen 8190;", f"listen 127.0.0.1:{local};"
    )
    text = text.replace("/tmp/", f"{folder}/")
    if os.geteuid() == 0:
        text = f"user root;\n{text}"
    async with running_nginx(folder, f"daemon off;\n{text}", tunnel):
        yield f"http://127.0.0.1:{tunnel}", f"http://127.0.0.1:{local}"


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        await asyncio.sleep(0.02)
        return False
    writer.close()
    await writer.wait_closed()
    return True

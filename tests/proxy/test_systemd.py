"""Readiness and watchdog, heard on a real socket as systemd listens on one."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy import systemd
from proxy.standin import StandIn
from proxy.systemd import ServiceManager
from tests.harness import running_gate
from tests.proxy.upstreams import GUARD_S

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.settimeout(GUARD_S)
        yield listener


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


async def heard(listener: socket.socket) -> bytes:
    return await asyncio.to_thread(listener.recv, 4096)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_state_is_one_datagram(address: str, is_abstract: bool) -> None:
    if is_abstract:
        if os.name != "posix" or not Path("/proc").is_dir():
            pytest.skip("abstract sockets are Linux's alone")
        address = f"@comfygate-{secrets.token_hex(8)}"
    with listening(address) as listener:
        ServiceManager({"NOTIFY_SOCKET": address}).notify("READY=1")
        assert listener.recv(4096) == b"READY=1"


def test_a_manager_that_does_not_listen_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ServiceManager({"NOTIFY_SOCKET": address}).notify("READY=1")
    ServiceManager({}).notify("READY=1")
    with listening(address) as listener:
        monkeypatch.delattr(systemd.socket, "AF_UNIX")
        ServiceManager({"NOTIFY_SOCKET": address}).notify("READY=1")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(4096)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
    ],
)
def test_the_watchdog_is_told_twice_in_the_time_that_it_waits(environ: dict[str, str], expected: float | None) -> None:
    assert ServiceManager(environ).watchdog_s == expected


async def test_the_watchdog_hears_again_and_again(address: str) -> None:
    with listening(address) as listener:
        manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"})
        pinging = asyncio.ensure_future(manager.keep_alive())
        assert [await heard(listener) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        pinging.cancel()


async def test_without_a_watchdog_there_is_nothing_to_keep_alive(address: str) -> None:
    async with asyncio.timeout(GUARD_S):
        await ServiceManager({"NOTIFY_SOCKET": address}).keep_alive()


async def test_a_gate_is_ready_when_it_serves_and_stopping_when_it_stops(
    tmp_path: Path, comfy: StandIn, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with listening(address) as listener:
        async with running_gate(tmp_path, comfy.url) as gate:
            said = {await heard(listener), await heard(listener)}
            assert said == {b"READY=1", b"WATCHDOG=1"}
            assert await gate.status("GET", "/features") == 200
            assert await heard(listener) == b"WATCHDOG=1"
        while (last := await heard(listener)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"


async def test_a_gate_that_does_not_start_is_never_ready(
    tmp_path: Path, comfy: StandIn, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with listening(address) as listener, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match="already in use"):
            async with running_gate(tmp_path, comfy.url, server='host = "127.0.0.1"', port=str(port)):
                raise AssertionError("it cannot have started")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(4096)

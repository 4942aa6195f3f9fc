"""sd_notify: real datagrams to a real socket, and nothing where no service manager listens."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.systemd import ServiceManager
from standin import StandIn
from tests.harness import running_gate

GUARD_S = 240.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(GUARD_S)
        yield listener, path


def is_empty(listener: socket.socket) -> bool:
    return not select.select([listener], [], [], 0)[0]


def test_tells_the_manager(manager: tuple[socket.socket, str]) -> None:
    listener, path = manager
    service = ServiceManager({"NOTIFY_SOCKET": path})
    for state in ("READY=1", "STOPPING=1"):
        service.notify(state)
        assert listener.recv(100) == state.encode()
    assert is_empty(listener)


def test_an_abstract_address() -> None:
    name = f"comfygate-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(GUARD_S)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).notify("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_says_nothing_without_a_manager(manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch) -> None:
    listener, path = manager
    ServiceManager({}).notify("READY=1")
    ServiceManager({"NOTIFY_SOCKET": ""}).notify("READY=1")
    service = ServiceManager({"NOTIFY_SOCKET": path})
    with monkeypatch.context() as windows:
        windows.delattr(socket, "AF_UNIX")
        service.notify("READY=1")
    assert is_empty(listener)


def test_a_manager_that_has_gone_is_no_failure(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).notify("READY=1")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_told_twice_in_its_time(environ: dict[str, str], expected: float | None) -> None:
    assert ServiceManager(environ).watchdog_s == expected


async def test_keeps_the_watchdog_quiet(manager: tuple[socket.socket, str]) -> None:
    listener, path = manager
    task = asyncio.ensure_future(ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2"}).keep_alive())
    for _ in range(3):
        assert await asyncio.to_thread(listener.recv, 100) == b"WATCHDOG=1"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_a_watchdog_nothing_is_kept_quiet(manager: tuple[socket.socket, str]) -> None:
    listener, path = manager
    await asyncio.wait_for(ServiceManager({"NOTIFY_SOCKET": path}).keep_alive(), GUARD_S)
    assert is_empty(listener)


async def test_a_gate_says_when_it_is_ready_and_when_it_stops(
    manager: tuple[socket.socket, str], tmp_path: Path, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, path = manager
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "600000000")
    async with running_gate(tmp_path, comfy.url):
        assert await asyncio.to_thread(listener.recv, 100) == b"READY=1"
        assert await asyncio.to_thread(listener.recv, 100) == b"WATCHDOG=1"
    assert await asyncio.to_thread(listener.recv, 100) == b"STOPPING=1"
    assert is_empty(listener)

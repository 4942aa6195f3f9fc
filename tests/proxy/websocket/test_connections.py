"""The open WebSockets of clients: counted, and closed together or by credential."""

from __future__ import annotations

from policy.principal import Principal, TenantId
from proxy.websocket.connections import CREDENTIAL_DEAD, GATE_STOPS, UPSTREAM_GONE, ConnectionRegistry
from proxy.websocket.relay import sendable
from proxy.websocket.send_queue import SendQueue

ALICE = Principal("a", TenantId("alice"))
MALLORY = Principal("m", TenantId("mallory"))


async def test_counts_what_is_open() -> None:
    sockets = ConnectionRegistry()
    with sockets.register(ALICE, SendQueue()) as first:
        with sockets.register(ALICE, SendQueue()):
            assert len(sockets) == 2
        assert len(sockets) == 1
        assert first.principal == ALICE
    assert len(sockets) == 0


async def test_is_forgotten_when_its_handler_fails() -> None:
    sockets = ConnectionRegistry()
    try:
        with sockets.register(ALICE, SendQueue()):
            raise ConnectionResetError
    except ConnectionResetError:
        pass
    assert len(sockets) == 0


async def test_closes_those_whose_credential_died() -> None:
    sockets = ConnectionRegistry()
    alices, mallorys = SendQueue(), SendQueue()
    with sockets.register(ALICE, alices), sockets.register(MALLORY, mallorys):
        assert sockets.close_revoked(lambda principal: principal != MALLORY) == 1
        assert await mallorys.get() == CREDENTIAL_DEAD
        assert mallorys.overflowed.is_set()
        assert not alices.is_closed


async def test_closes_all_also_those_that_open_meanwhile() -> None:
    sockets = ConnectionRegistry()
    early, late = SendQueue(), SendQueue()
    with sockets.register(ALICE, early):
        sockets.close_all(GATE_STOPS)
        assert await early.get() == GATE_STOPS
        with sockets.register(MALLORY, late):
            assert await late.get() == GATE_STOPS


def test_close_codes_may_be_sent() -> None:
    for close in (GATE_STOPS, UPSTREAM_GONE, CREDENTIAL_DEAD):
        assert sendable(close.code) == close.code
        assert len(close.reason.encode()) <= 123

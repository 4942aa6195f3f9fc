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
    first, second = sockets.register(ALICE, SendQueue()), sockets.register(ALICE, SendQueue())
    assert len(sockets) == 2
    sockets.remove(second)
    assert len(sockets) == 1
    assert first.principal == ALICE
    sockets.remove(first)
    assert len(sockets) == 0


async def test_closes_those_whose_credential_died() -> None:
    sockets = ConnectionRegistry()
    alices, mallorys = SendQueue(), SendQueue()
    sockets.register(ALICE, alices)
    sockets.register(MALLORY, mallorys)
    assert sockets.close_revoked(lambda principal: principal != MALLORY) == 1
    assert mallorys.take() == CREDENTIAL_DEAD
    assert mallorys.ends_at_once
    assert not alices.is_closed


async def test_closes_all_also_those_that_open_meanwhile() -> None:
    sockets = ConnectionRegistry()
    early, late = SendQueue(), SendQueue()
    sockets.register(ALICE, early)
    sockets.close_all(GATE_STOPS)
    assert early.take() == GATE_STOPS
    sockets.register(MALLORY, late)
    assert late.take() == GATE_STOPS


async def test_closes_those_that_are_open_and_none_that_opens_later() -> None:
    sockets = ConnectionRegistry()
    early, late = SendQueue(), SendQueue()
    sockets.register(ALICE, early)
    sockets.close_open(GATE_STOPS)
    sockets.register(ALICE, late)
    assert early.take() == GATE_STOPS
    assert not late.is_closed


def test_close_codes_may_be_sent() -> None:
    for close in (GATE_STOPS, UPSTREAM_GONE, CREDENTIAL_DEAD):
        assert sendable(close.code) == close.code
        assert len(close.reason.encode()) <= 123

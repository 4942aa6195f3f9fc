"""The request log and the gate's own log lines."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from policy.principal import Principal, TenantId
from proxy.config.server import LogSettings
from proxy.http.request_record import RequestRecord
from proxy.observability.access_log import Recorder, RequestLog, request_log, set_up_logging
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics

ALICE = Principal("7f3a9c21", TenantId("alice"))


@pytest.fixture(autouse=True)
def _restored_logger() -> Iterator[None]:
    logger = logging.getLogger("comfygate")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def record(**more: Any) -> RequestRecord:
    fields = {"route": "GET /queue", "status": 200, **more}
    return RequestRecord("GET", "abc", "192.0.2.1", **fields)


def lines(stream: io.BytesIO) -> list[Any]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_json_per_exchange() -> None:
    stream = io.BytesIO()
    log = RequestLog(stream, "json")
    log.write(record(principal=ALICE, received_bytes=3, sent_bytes=4, upstream_s=0.002))
    log.write(record(status=401, reason="key-unknown", cf_ray="230b030023ae2822-SJC"))
    good, bad = lines(stream)
    assert good.pop("gate_ms") >= 0
    assert good.pop("time").endswith("Z")
    assert good == {
        "event": "request",
        "request_id": "abc",
        "client": "192.0.2.1",
        "method": "GET",
        "route": "GET /queue",
        "status": 200,
        "tenant": "alice",
        "subject": "7f3a9c21",
        "received_bytes": 3,
        "sent_bytes": 4,
        "upstream_ms": 2.0,
    }
    assert (bad["tenant"], bad["reason"], bad["cf_ray"]) == (None, "key-unknown", "230b030023ae2822-SJC")


@pytest.mark.parametrize(("status", "colour"), [(200, "32"), (404, "33"), (502, "31")])
def test_a_line_for_a_terminal(status: int, colour: str) -> None:
    stream = io.BytesIO()
    RequestLog(stream, "text").write(record(status=status, principal=ALICE, reason="why"))
    line = stream.getvalue().decode()
    assert f"\x1b[{colour}m{status}\x1b[0m GET /queue alice/7f3a9c21 " in line
    assert line.endswith("ms why [abc]\n")


def test_a_caller_who_is_nobody_is_a_dash() -> None:
    stream = io.BytesIO()
    RequestLog(stream, "text").write(record())
    assert " GET /queue - " in stream.getvalue().decode()


class Full(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_takes_nothing_down() -> None:
    closed = io.BytesIO()
    closed.close()
    for stream in (closed, Full()):
        RequestLog(stream, "json").write(record())


def test_each_exchange_is_counted_and_logged() -> None:
    stream, metrics = io.BytesIO(), Metrics()
    Recorder(metrics, RequestLog(stream, "json"), AuditTrail(None, 0, 0)).record(record(principal=ALICE))
    assert len(lines(stream)) == 1
    assert (
        b'comfygate_requests_total{method="GET",route="GET /queue",status="200",tenant="alice"} 1.0' in metrics.render()
    )


@pytest.mark.parametrize(
    ("style", "is_terminal", "expected"),
    [("auto", True, "text"), ("auto", False, "json"), ("json", True, "json"), ("text", False, "text")],
)
def test_style_follows_the_terminal(
    monkeypatch: pytest.MonkeyPatch, style: Any, is_terminal: bool, expected: str
) -> None:
    class Stream(io.TextIOWrapper):
        def isatty(self) -> bool:
            return is_terminal

    stream = Stream(io.BytesIO())
    monkeypatch.setattr(sys, "stderr", stream)
    request_log(style).write(record())
    set_up_logging(LogSettings(format=style))
    logging.getLogger("comfygate").info("hello %s", "there")
    stream.flush()
    first, second = stream.buffer.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first.startswith(b"{") is (expected == "json")
    assert second.startswith(b"{") is (expected == "json")
    assert b"hello there" in second


def test_the_gates_own_lines_are_json_with_their_stack(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogSettings(format="json", level="warning"))
    logger = logging.getLogger("comfygate")
    logger.info("below the level")
    try:
        raise LookupError("a bug")
    except LookupError:
        logger.exception("it failed")
    written = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in written] == ["it failed"]
    assert written[0]["level"] == "error"
    assert "LookupError: a bug" in written[0]["exception"]


def test_logging_set_up_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        set_up_logging(LogSettings(format="text"))
    logging.getLogger("comfygate").warning("once")
    assert capsys.readouterr().err.count("once") == 1

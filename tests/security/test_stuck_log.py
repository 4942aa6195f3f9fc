"""A log that nobody reads stops no request: lines wait, then are dropped, and the number is told."""

from __future__ import annotations

import io
import logging
import os
import threading
from pathlib import Path

import pytest

from proxy.http.request_record import RequestRecord
from proxy.observability.access_log import Recorder, RequestLog
from proxy.observability.audit_log import AuditTrail, read_trail
from proxy.observability.metrics import Metrics
from proxy.observability.queued_writer import QueuedWriter, write_all


def test_a_pipe_that_nobody_reads_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "comfygate")
    logging.getLogger("comfygate").propagate = True
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as stream:
        lines = QueuedWriter(stream.write, max_lines=100)
        log = RequestLog(stream, "json", lines)
        number = 0
        while not lines.dropped:  # the pipe is full, then the queue: this thread would wait for ever
            log.write(RequestRecord("GET", f"id-{number}", "127.0.0.1"))
            number += 1
        dropped = lines.dropped
        closing = threading.Thread(target=lines.close, args=(30.0,))
        closing.start()
        read = 0
        while read < number - dropped:
            read += os.read(reader.fileno(), 65536).count(b"\n")
        closing.join(30.0)
    assert read == number - dropped
    assert f"{dropped} lines were not written" in caplog.text


def test_lost_lines_are_counted_by_their_sink(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as stream:
        lines = QueuedWriter(stream.write, max_lines=10)
        log, metrics = RequestLog(stream, "json", lines), Metrics()
        recorder = Recorder(metrics, log, AuditTrail(tmp_path / "audit.jsonl", max_bytes=2000, keep=1))
        recorder.count_dropped()
        assert b'comfygate_log_lines_dropped_total{sink="log"} 0.0' in metrics.render()
        while lines.dropped < 3:
            log.write(RequestRecord("GET", "id", "127.0.0.1"))
        recorder.count_dropped()
        recorder.count_dropped()
        assert b'comfygate_log_lines_dropped_total{sink="log"} 3.0' in metrics.render()
        assert b'comfygate_log_lines_dropped_total{sink="audit"} 0.0' in metrics.render()


def test_a_stream_that_would_not_block_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    expected = b"".join(b"%07d\n" % number for number in range(50_000))
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as stream:
        lines = QueuedWriter(lambda together: write_all(stream, together), max_lines=50_000, together=10_000)
        for start in range(0, len(expected), 8):
            lines.put(expected[start : start + 8])

        def end() -> None:
            lines.close(30.0)
            stream.close()

        ending = threading.Thread(target=end)
        ending.start()
        found = reader.read()
        ending.join(30.0)
    assert found == expected


def test_a_reader_that_is_stuck_does_not_hold_up_the_end() -> None:
    go_on = threading.Event()
    lines = QueuedWriter(lambda line: go_on.wait(60), max_lines=1)
    lines.put(b"1")
    for _ in range(3):
        lines.put(b"2")
    lines.close(0.01)
    go_on.set()


def test_lines_stand_in_their_order_and_a_closed_stream_takes_nothing_down() -> None:
    stream = io.BytesIO()
    lines = QueuedWriter(stream.write)
    for number in range(1000):
        lines.put(b"%d\n" % number)
    lines.close()
    assert stream.getvalue() == b"".join(b"%d\n" % number for number in range(1000))
    stream.close()
    late = QueuedWriter(stream.write)
    late.put(b"late")
    late.close()
    assert late.dropped == 0


def test_the_trail_is_written_by_a_thread_and_whole_when_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    trail = AuditTrail(file, max_bytes=2000, keep=20)
    trail.open()
    trail.use_thread()
    for number in range(200):
        trail.write("config", number=number)
    trail.close()
    trail.write("config", number=200)
    assert [entry["number"] for entry in read_trail(file, 20)] == list(range(200))
    assert all(each.stat().st_size <= 2000 for each in tmp_path.iterdir()), (
        "rotated between the lines that came together"
    )


def test_lines_that_wait_are_written_together_whole_and_in_their_order() -> None:
    go_on, written = threading.Event(), list[bytes]()

    def write(lines: bytes) -> None:
        written.append(lines)
        go_on.wait(60)

    lines = QueuedWriter(write, together=20)
    for number in range(1000):
        lines.put(b"%04d\n" % number)
    go_on.set()
    lines.close(30.0)
    assert b"".join(written) == b"".join(b"%04d\n" % number for number in range(1000))
    assert all(len(each) <= 100 and each.endswith(b"\n") for each in written)
    assert len(written) <= 52, "twenty at once, but for the first and what came while it was taken"

"""The audit trail as a file: whole lines, rotated by size, and no reason for the gate to stop; and what a running gate writes there."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.principal import Principal, TenantId
from policy.violation import Reason
from proxy.http.request_record import RequestRecord
from proxy.jobs.registry import Job, Outcome
from proxy.observability.audit_log import MAX_OF_NOBODY, AuditTrail, is_since, read_trail

ALICE = TenantId("alice")


@contextmanager
def open_trail(file: Path | None, max_bytes: int = 10**6, keep: int = 3) -> Iterator[AuditTrail]:
    trail = AuditTrail(file, max_bytes, keep)
    trail.open()
    try:
        yield trail
    finally:
        trail.close()


def entries(file: Path) -> list[dict[str, Any]]:
    """Every line must be whole."""
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "audit.jsonl"


def test_a_line_is_appended_with_time_and_event(file: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    for number in range(2):
        with open_trail(file) as trail:
            trail.write("config", number=number, path=Path("x"))
    assert [(entry["event"], entry["number"], entry["path"]) for entry in entries(file)] == [
        ("config", 0, "x"),
        ("config", 1, "x"),
    ]
    for entry in entries(file):
        assert before <= datetime.fromisoformat(entry["time"]) <= datetime.now(UTC)
    assert file.stat().st_mode & 0o777 == 0o600


def test_each_line_is_one_write(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = os.write

    def seen(handle: int, content: bytes) -> int:
        writes.append(content)
        return write(handle, content)

    with open_trail(file) as trail:
        monkeypatch.setattr(os, "write", seen)
        trail.write("config", text="one\ntwo")
        trail.write("config")
    assert [content.count(b"\n") for content in writes] == [1, 1]
    assert b"".join(writes) == file.read_bytes()


def test_nothing_is_written_where_no_trail_is_kept_or_open(file: Path) -> None:
    with open_trail(None) as none:
        none.write("config")
        none.record(record("GET /queue"))
    closed = AuditTrail(file, 100, 1)
    closed.write("config")
    with open_trail(file) as trail:
        trail.write("config")
    trail.write("config")
    trail.record(record("POST /prompt"))
    trail.close()
    assert len(entries(file)) == 1


def test_rotates_by_size_and_keeps_the_newest(file: Path) -> None:
    with open_trail(file, max_bytes=200, keep=2) as trail:
        for number in range(12):
            trail.write("config", number=number, filler="x" * 40)
    kept = sorted(path.name for path in file.parent.iterdir())
    assert kept == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= 200 for path in file.parent.iterdir())
    numbers = [entry["number"] for entry in read_trail(file, 2)]
    assert numbers == list(range(12))[-len(numbers) :]
    assert len(numbers) >= 3


def test_a_line_larger_than_the_limit_is_kept_whole(file: Path) -> None:
    with open_trail(file, max_bytes=100) as trail:
        trail.write("config", text="x" * 500)
        trail.write("config", text="small")
    assert [len(entry["text"]) for entry in read_trail(file, 3)] == [500, 5]
    assert len(entries(file)) == 1


@pytest.mark.parametrize("torn", [b'{"event":"con', b"x"])
def test_a_torn_last_line_is_ended_on_open(file: Path, torn: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(b'{"event":"job"}\n' + torn)
    with open_trail(file) as trail:
        trail.write("config")
        trail.write("login")
    assert file.read_bytes().startswith(b'{"event":"job"}\n' + torn + b"\n{")
    assert [entry["event"] for entry in read_trail(file, 1)] == ["job", "config", "login"]


def test_the_start_fails_when_there_can_be_no_trail(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        AuditTrail(tmp_path, 100, 1).open()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        AuditTrail(tmp_path / "file" / "audit.jsonl", 100, 1).open()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with open_trail(Path("/dev/full")) as trail:
        trail.write("config")
        trail.write("config")
        assert len(complaints(caplog)) == 1
        assert "/dev/full cannot be written: [Errno 28]" in complaints(caplog)[0]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Stands for a disk that fills up in the middle of a line: write(2) writes what has room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_torn_by_a_full_disk_is_ended_before_the_next_one(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_trail(file) as trail:
        trail.write("config", number=1)
        with files_of_at_most(file.stat().st_size + 10):
            trail.write("config", number=2)
            trail.write("config", number=3)
        assert len(complaints(caplog)) == 1
        trail.write("config", number=4)
        with files_of_at_most(file.stat().st_size):
            trail.write("config", number=5)
        assert len(complaints(caplog)) == 2, "after a good line the next failure is news"
    assert [entry["number"] for entry in read_trail(file, 1)] == [1, 4]


def test_a_trail_that_cannot_be_rotated_grows(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocker = file.with_name("audit.jsonl.1")
    (blocker / "inside").mkdir(parents=True)
    with open_trail(file, max_bytes=100, keep=1) as trail:
        for number in range(3):
            trail.write("config", number=number, filler="x" * 30)
        assert [entry["number"] for entry in entries(file)] == [0, 1, 2]
        assert len(complaints(caplog)) == 1
        (blocker / "inside").rmdir()
        blocker.rmdir()
        trail.write("config", number=3)
    assert [entry["number"] for entry in read_trail(file, 1)] == [0, 1, 2, 3]
    assert len(entries(file)) == 1


def test_a_trail_whose_folder_vanished_is_made_anew_when_it_rotates(file: Path) -> None:
    with open_trail(file, max_bytes=60, keep=1) as trail:
        trail.write("config", number=0)
        file.unlink()
        file.parent.rmdir()
        trail.write("config", number=1)
    assert [entry["number"] for entry in entries(file)] == [1]


def test_what_is_no_entry_is_passed_over(file: Path) -> None:
    assert list(read_trail(file, 3)) == []
    file.parent.mkdir()
    file.write_bytes(b'{"event":"c"}\nnot json\n\n[1]\n"x"\n{"event":"d"}')
    file.with_name("audit.jsonl.2").write_bytes(b'{"event":"a"}\n')
    file.with_name("audit.jsonl.1").write_bytes(b'{"event":"b"}\n')
    file.with_name("audit.jsonl.3").write_bytes(b'{"event":"older than is kept"}\n')
    assert [entry["event"] for entry in read_trail(file, 2)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-02T00:00:00.000+00:00", True),
        ("2026-01-01T00:00:00+00:00", True),
        ("2025-12-31T23:59:59.999+00:00", False),
        ("2026-01-01T00:30:00+01:00", False),
        ("yesterday", False),
        ("", False),
        (None, False),
        (5, False),
    ],
)
def test_since(written: Any, expected: bool) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert is_since({"time": written}, moment) is expected


def record(route: str, status: int = 200, reason: str = "", **more: Any) -> RequestRecord:
    submits = route == "POST /prompt"
    return RequestRecord("POST", "abc", "192.0.2.1", route=route, status=status, reason=reason, submits=submits, **more)


REFUSED_ROUTES = (
    Reason.ROUTE_REFUSED,
    Reason.ADMINS_ONLY,
    Reason.SCOPE_MISSING,
    Reason.ORIGIN_FOREIGN,
    Reason.ROUTE_UNLISTED,
    Reason.FILE_TYPE_REFUSED,
    Reason.NAME_REFUSED,
    Reason.STORAGE_FULL,
    Reason.BODY_TOO_LARGE,
)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (record("POST /prompt"), {"event": "submission", "decision": "accepted", "status": 200}),
        (record("POST /prompt", 400), {"event": "submission", "decision": "refused", "status": 400}),
        (
            record("POST /prompt", 400, "class-refused", notes={"by": "gate", "violations": []}),
            {
                "event": "submission",
                "decision": "refused",
                "status": 400,
                "reason": "class-refused",
                "by": "gate",
                "violations": [],
            },
        ),
        (record("POST /prompt", 499, "client-gone"), {"event": "submission", "decision": "refused", "status": 499,
                                                        "reason": "client-gone"}),
        (record("POST /gate/login", 303, notes={"login": "good"}), {"event": "login", "login": "good", "status": 303}),
        *((record("GET /x", 403, reason), {"event": "refused", "status": 403, "reason": reason})
          for reason in REFUSED_ROUTES),
    ],
)  # fmt: skip
def test_what_of_an_exchange_belongs_in_the_trail(file: Path, seen: RequestRecord, expected: dict[str, Any]) -> None:
    with open_trail(file) as trail:
        trail.record(seen)
    (entry,) = entries(file)
    assert entry.pop("time")
    assert entry == {
        "request_id": "abc",
        "client": "192.0.2.1",
        "tenant": None,
        "subject": None,
        "route": seen.route,
        **expected,
    }


@pytest.mark.parametrize(
    "seen", [record("GET /queue"), record("GET /queue", 429, "rate-exceeded"), record("GET /queue", 502)]
)
def test_what_of_an_exchange_does_not(file: Path, seen: RequestRecord) -> None:
    with open_trail(file) as trail:
        trail.record(seen)
    assert file.read_bytes() == b""


def test_a_stranger_cannot_fill_the_trail(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody with a key is kept out of it meanwhile, and after a minute there is room again."""
    now = 600.0
    monkeypatch.setattr("proxy.observability.audit_log.time.monotonic", lambda: now)
    with open_trail(file) as trail:
        for _ in range(MAX_OF_NOBODY + 50):
            trail.record(record("POST /prompt", 401, "credential-missing"))
        assert len(entries(file)) == MAX_OF_NOBODY
        trail.record(record("POST /prompt", principal=Principal("7f3a9c21", ALICE)))
        assert entries(file)[-1]["tenant"] == "alice"
        now = 660.0
        trail.record(record("POST /prompt", 401, "credential-missing"))
    assert len(entries(file)) == MAX_OF_NOBODY + 2


def test_who_it_was(file: Path) -> None:
    with open_trail(file) as trail:
        trail.record(record("POST /prompt", principal=Principal("7f3a9c21", ALICE)))
    assert {"tenant": "alice", "subject": "7f3a9c21"}.items() <= entries(file)[0].items()


@pytest.mark.parametrize(
    ("outcome", "failing", "expected"),
    [(Outcome.COMPLETED, "", {}), (Outcome.FAILED, "KSampler", {"failing_class": "KSampler"})],
)
def test_a_jobs_end(file: Path, outcome: Outcome, failing: str, expected: dict[str, str]) -> None:
    job = Job("p", ALICE, "7f3a9c21", "w", outcome=outcome, failing_class=failing, gpu_s=1.23456)
    with open_trail(file) as trail:
        trail.job_ended(job)
    (entry,) = entries(file)
    assert entry.pop("time")
    assert entry == {
        "event": "job",
        "prompt_id": "p",
        "tenant": "alice",
        "subject": "7f3a9c21",
        "workflow": "w",
        "outcome": outcome.value,
        "gpu_seconds": 1.235,
        **expected,
    }

"""The audit trail: whole lines, appended, rotated, and read back; what of a request and of a job stands in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.principal import Principal, TenantId
from proxy.audit import AuditTrail, cut_off, is_since, read_trail
from proxy.exchange import Exchange
from proxy.ledger import Job, Outcome
from tests.contract.driver import node, saving, slow
from tests.harness import AUDIT_FILE, Running

ALICE = Principal("7f3a9c21", TenantId("alice"))
LARGE = 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.jsonl"


@pytest.fixture
def trail(file: Path) -> Iterator[AuditTrail]:
    opened = AuditTrail(file, LARGE, 3)
    opened.open()
    yield opened
    opened.close()


def exchange(**more: Any) -> Exchange:
    fields = {"route": "GET /queue", "status": 200, "principal": ALICE, **more}
    return Exchange("GET", "abc", "192.0.2.1", **fields)


def entries(file: Path, keep: int = 3) -> list[dict[str, Any]]:
    return list(read_trail(file, keep))


def test_a_line_is_appended_at_once_and_only_its_owner_reads_it(trail: AuditTrail, file: Path) -> None:
    trail.write("config", result="good", path=Path("x"))
    (line,) = file.read_bytes().splitlines(keepends=True)
    assert line.endswith(b"\n")
    entry = orjson.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).tzinfo is not None
    assert entry == {"event": "config", "result": "good", "path": "x"}
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_trail_goes_on_where_it_ended(trail: AuditTrail, file: Path) -> None:
    trail.write("config", result="good")
    trail.close()
    trail.write("config", result="not open")
    trail.close()
    again = AuditTrail(file, LARGE, 3)
    again.open()
    again.write("config", result="bad")
    again.close()
    assert [entry["result"] for entry in entries(file)] == ["good", "bad"]


def test_a_torn_last_line_spoils_no_other(trail: AuditTrail, file: Path) -> None:
    """The machine stopped in the middle of a write."""
    trail.write("config", number=1)
    trail.close()
    with file.open("ab") as torn:
        torn.write(b'{"time":"2026-01-01T00:00:00.000+00:00","event":"sub')
    trail.open()
    trail.write("config", number=2)
    assert [entry.get("number") for entry in entries(file)] == [1, 2]
    assert len(file.read_bytes().splitlines()) == 3


def test_lines_that_are_no_entries_are_passed_over(trail: AuditTrail, file: Path) -> None:
    trail.write("config", number=1)
    with file.open("ab") as other:
        other.write(b"\n\xff\xfe\n[1]\n7\nnull\n")
    trail.write("config", number=2)
    assert [entry["number"] for entry in entries(file)] == [1, 2]


def test_files_are_rotated_by_size_and_the_oldest_goes(file: Path) -> None:
    trail = AuditTrail(file, 300, 3)
    trail.open()
    for number in range(40):
        trail.write("config", number=number)
    trail.close()
    names = sorted(path.name for path in file.parent.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    assert all(path.stat().st_size <= 300 for path in file.parent.iterdir())
    found = [entry["number"] for entry in entries(file)]
    assert found == list(range(40))[-len(found) :]
    assert len(found) > 10
    assert [entry["number"] for entry in entries(file, 1)] == found[-len(entries(file, 1)) :]


def test_a_line_larger_than_a_file_is_written_all_the_same(file: Path) -> None:
    trail = AuditTrail(file, 10, 1)
    trail.open()
    for number in range(3):
        trail.write("config", number=number)
    trail.close()
    assert [entry["number"] for entry in entries(file, 1)] == [1, 2]


def test_no_file_is_no_trail(tmp_path: Path) -> None:
    trail = AuditTrail(None, LARGE, 3)
    trail.open()
    trail.write("config", result="good")
    trail.exchange(exchange(route="POST /prompt"))
    trail.close()
    assert list(tmp_path.iterdir()) == []
    assert entries(tmp_path / "audit.jsonl") == []


def test_a_trail_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        AuditTrail(tmp_path / "audit.jsonl", LARGE, 3).open()


def test_a_trail_that_cannot_be_written_is_said_once_until_it_can(
    trail: AuditTrail, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", full)
            for _ in range(3):
                trail.write("config", result="lost")
        trail.write("config", result="kept")
    assert [record.getMessage() for record in caplog.records] == [
        f"the audit trail {file} cannot be written: [Errno 28] No space left on device"
    ] * 2
    assert [entry["result"] for entry in entries(file)] == ["kept", "kept"]


def test_a_write_that_was_cut_short_is_one_bad_line(
    trail: AuditTrail, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fills up takes a part of a line (write(2)): the next one does not hang on to it."""
    whole = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda handle, data: whole(handle, data[:10]))
        trail.write("config", number=1)
    trail.write("config", number=2)
    assert [entry["number"] for entry in entries(file)] == [2]
    assert "cannot be written" in caplog.text


def test_a_trail_that_cannot_be_rotated_grows(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    trail = AuditTrail(file, 100, 3)
    trail.open()
    trail.write("config", number=0)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", refused)
        trail.write("config", number=1)
        trail.write("config", number=2)
    assert len(file.read_bytes().splitlines()) == 3
    trail.write("config", number=3)
    trail.close()
    assert caplog.text.count("cannot be written") == 1
    assert len(file.read_bytes().splitlines()) == 1
    assert [entry["number"] for entry in entries(file)] == [0, 1, 2, 3]


def test_a_trail_whose_folder_vanishes_begins_anew(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    trail = AuditTrail(file, 10, 3)
    trail.open()
    trail.write("config", number=0)
    file.unlink()
    file.parent.rmdir()
    trail.write("config", number=1)
    trail.write("config", number=2)
    trail.close()
    assert [entry["number"] for entry in entries(file)] == [1, 2]
    assert caplog.text.count("cannot be written") == 1


def test_a_submission_says_who_and_what_and_why(trail: AuditTrail, file: Path) -> None:
    notes = {"workflow": "9f", "classes": ["SaveImage"], "prompt_id": "p"}
    trail.exchange(exchange(route="POST /prompt", notes=notes))
    trail.exchange(
        exchange(
            route="POST /prompt", status=403, reason="policy-violation", notes={"reasons": ["class-not-permitted"]}
        )
    )
    trail.exchange(exchange(route="POST /prompt", status=400))
    good, bad, faulty = entries(file)
    assert datetime.fromisoformat(good.pop("time")) <= datetime.now(UTC)
    assert good == {
        "event": "submission",
        "decision": "accepted",
        "request_id": "abc",
        "client": "192.0.2.1",
        "tenant": "alice",
        "subject": "7f3a9c21",
        "route": "POST /prompt",
        "status": 200,
        **notes,
    }
    assert (bad["decision"], bad["reason"], bad["reasons"]) == ("refused", "policy-violation", ["class-not-permitted"])
    assert (faulty["decision"], "reason" in faulty) == ("refused", False)


def test_logins_and_refused_routes_are_kept_and_the_rest_is_not(trail: AuditTrail, file: Path) -> None:
    trail.exchange(exchange(route="POST /gate/login", notes={"login": "good"}))
    trail.exchange(exchange(route="POST /gate/login", status=401, principal=None, notes={"login": "bad"}, reason="x"))
    for reason in ("route-unlisted", "route-refused", "admins-only", "scope-missing", "origin-foreign"):
        trail.exchange(exchange(status=403, reason=reason))
    trail.exchange(exchange())
    trail.exchange(exchange(status=429, reason="rate-limited"))
    trail.exchange(exchange(status=401, reason="credential-missing", principal=None))
    found = entries(file)
    assert [(entry["event"], entry.get("login") or entry["reason"]) for entry in found] == [
        ("login", "good"),
        ("login", "bad"),
        ("refused", "route-unlisted"),
        ("refused", "route-refused"),
        ("refused", "admins-only"),
        ("refused", "scope-missing"),
        ("refused", "origin-foreign"),
    ]
    assert (found[1]["tenant"], found[1]["subject"]) == (None, None)


def test_the_end_of_a_job_says_what_it_used(trail: AuditTrail, file: Path) -> None:
    job = Job("p", TenantId("alice"), "7f3a9c21", "9f", outcome=Outcome.COMPLETED, gpu_s=1.23456)
    trail.job_ended(job)
    job.outcome, job.failing_class = Outcome.FAILED, "KSampler"
    trail.job_ended(job)
    done, failed = entries(file)
    assert done.pop("time")
    assert done == {
        "event": "job",
        "prompt_id": "p",
        "tenant": "alice",
        "subject": "7f3a9c21",
        "workflow": "9f",
        "outcome": "completed",
        "gpu_seconds": 1.235,
    }
    assert failed["failing_class"] == "KSampler"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1970-01-02T00:00:00.000+00:00", True),
        ("1970-01-01T23:59:59.999+00:00", False),
        ("1970-01-02T01:00:00+02:00", False),
        ("yesterday", False),
        ("", False),
        (None, False),
        (7, False),
    ],
)
def test_age(written: object, expected: bool) -> None:
    assert is_since({"time": written}, 86400.0) is expected
    assert not is_since({}, 0.0)


def test_a_cut_off_is_that_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.audit.time.time", lambda: 1000.0)
    assert cut_off(60.0) == 940.0


async def test_a_gates_trail_tells_the_whole_story(gate: Running) -> None:
    """Submissions with what became of them, refusals, logins; never the text of a prompt."""
    file = gate.config_file.parent / AUDIT_FILE
    assert await gate.status("GET", "/manager/reboot", "alice") == 404
    refused = {"1": node("RunShellCommand", command="the words of a prompt")}
    assert await gate.status("POST", "/prompt", "mallory", json={"prompt": refused}) == 403
    assert await gate.status("POST", "/gate/login", None, data={"key": "no key"}, headers={"Origin": gate.url}) == 401
    ids = []
    for graph in (saving("the words of a prompt"), slow(0.01, 1)):
        ids.append((await gate.json("POST", "/prompt", "alice", json={"prompt": graph}))["prompt_id"])
    while sum(entry["event"] == "job" for entry in entries(file)) < 2:
        await gate.gate.services.observer.sync()
    found = entries(file)
    events = [(entry["event"], entry.get("decision") or entry.get("outcome") or entry.get("login")) for entry in found]
    assert events[:3] == [("refused", None), ("submission", "refused"), ("login", "bad")]
    assert sorted(events[3:], key=str) == [("job", "completed")] * 2 + [("submission", "accepted")] * 2
    assert found[1]["classes"] == ["RunShellCommand"]
    assert found[1]["reasons"]
    submitted = {entry["prompt_id"]: entry for entry in found if entry.get("decision") == "accepted"}
    ended = {entry["prompt_id"]: entry for entry in found if entry["event"] == "job"}
    assert list(submitted) == ids
    assert ended.keys() == submitted.keys()
    assert submitted[ids[0]]["classes"] == ["EmptyImage", "SaveImage"]
    assert submitted[ids[0]]["workflow"] == ended[ids[0]]["workflow"] != submitted[ids[1]]["workflow"]
    assert ended[ids[1]]["gpu_seconds"] >= 0.01
    assert submitted[ids[0]]["subject"] == gate.keys["alice"].split("_")[1]
    assert b"the words" not in file.read_bytes()

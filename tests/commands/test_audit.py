"""`comfygate audit`: which lines are printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from proxy.commands.command_line import app

REFUSED: dict[str, Any] = {
    "event": "submission",
    "decision": "refused",
    "request_id": "aa11",
    "client": "192.0.2.1",
    "subject": "7f3a9c21",
    "route": "POST /prompt",
    "status": 403,
    "reason": "policy-violation",
    "by": "gate",
    "violations": [
        {"node": "3", "class": "KSampler", "input": "steps", "reason": "value-too-large", "message": "Not permitted.",
         "found": "80", "allowed": "at most 50"},
        {"node": "4\x1b[31m", "class": "LoadAudio", "input": None, "reason": "class-not-permitted", "message": "No."},
    ],
}  # fmt: skip


def run(file: Path, *options: str, command: str = "audit") -> Result:
    return CliRunner().invoke(app, [command, *options, "--config", str(file)])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command prints goes to a terminal."""
    monkeypatch.setattr("proxy.commands.audit._is_terminal", lambda: True)


@pytest.fixture
def refusals(tmp_path: Path) -> Path:
    """A trail with two refusals, of alice and of bob, a good submission of alice's, a refused login, and a job."""
    file, now = tmp_path / "config.toml", datetime.now(UTC)
    file.write_text('[tenants.alice]\npolicy = "strict"\n[tenants.bob]\n[policies.strict]\nallow = ["A"]\n')
    good = {"request_id": "bb22", "event": "submission", "decision": "accepted", "status": 200, "prompt_id": "p1"}
    comfyuis = {
        "by": "comfyui",
        "request_id": "cc33",
        "reason": "prompt_outputs_failed_validation",
        "violations": [
            {"node": "1", "class": "CheckpointLoaderSimple", "input": "ckpt_name", "reason": "value_not_in_list",
             "message": "Value not in list"}
        ],
    }  # fmt: skip
    login = {"event": "login", "login": "bad", "request_id": "dd44", "reason": "key-unknown", "status": 401}
    lines = [
        {"tenant": "alice", **REFUSED},
        {"tenant": "alice", **good},
        {"tenant": "bob", **REFUSED, **comfyuis},
        {"tenant": None, **login},
        {"event": "job", "tenant": "alice", "prompt_id": "p1", "outcome": "failed", "failing_class": "KSampler"},
    ]
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "audit.jsonl").write_bytes(
        b"".join(orjson.dumps({"time": now.isoformat(), **line}) + b"\n" for line in lines)
    )
    return file


def test_the_trail_is_kept_without_being_asked_for(refusals: Path) -> None:
    assert len(run(refusals).stdout.splitlines()) == 5


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [entry.get("request_id") for entry in map(orjson.loads, result.stdout.splitlines())]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--refused",), ["aa11", "cc33", "dd44"]),
        (("--refused", "--tenant", "bob"), ["cc33"]),
        (("--id", "cc33"), ["cc33"]),
        (("--id", "p1"), ["bb22", None]),
        (("--id", "cc"), []),
    ],
)
def test_refusals_and_ids(refusals: Path, options: tuple[str, ...], expected: list[str]) -> None:
    assert ids(run(refusals, *options)) == expected


def test_a_table_on_a_terminal(refusals: Path, terminal: None) -> None:
    head, *rows = run(refusals).stdout.splitlines()
    assert head.split() == ["WHEN", "TENANT", "WHAT", "STATUS", "REQUEST", "WHY"]
    assert (
        "Node 3 KSampler, steps: found 80, allowed: at most 50. Not permitted. (value-too-large) (and 1 more)"
        in rows[0]
    )
    assert "ckpt_name. Value not in list (value_not_in_list)" in rows[2]
    assert rows[3].endswith("key-unknown")
    assert rows[4].endswith("KSampler")
    assert len(ids(run(refusals, "--json"))) == 5


def test_why_names_what_and_which_setting(refusals: Path) -> None:
    said = run(refusals, "aa11", command="why")
    assert said.exit_code == 0, said.output
    assert "alice (7f3a9c21) sent POST /prompt from 192.0.2.1 and got 403." in said.stdout
    assert "Node 3 KSampler, steps: found 80, allowed: at most 50. Not permitted. (value-too-large)" in said.stdout
    assert 'The bound is `max` of policies.strict.inputs, under "KSampler.steps" or "*.steps".' in said.stdout
    assert 'add "LoadAudio" to policies.strict.allow' in said.stdout


def test_why_of_the_last_refusal(refusals: Path) -> None:
    assert "key-unknown" in run(refusals, "--last", command="why").stdout
    said = run(refusals, "--last", "--tenant", "bob", command="why").stdout
    assert said.startswith("ComfyUI refused this")
    assert "ComfyUI has no such model" in said
    record = run(refusals, "--last", "--tenant", "alice", "--json", command="why").stdout
    assert orjson.loads(record)["request_id"] == "aa11"


def test_why_tells_the_operator_what_the_client_is_not_told(refusals: Path, terminal: None) -> None:
    refused = {"tenant": "alice", **REFUSED, "request_id": "ee55", "reason": "argument-refused", "violations": []}
    fetch = {"event": "fetch", "tenant": "alice", "request_id": "ee55", "origin": "https://a.test"}
    lines = [
        fetch | {"result": "fetched"},
        fetch | {"result": "unreachable", "note": "10.0.0.1 is not a public address"},
        fetch | {"result": "unreachable", "request_id": "other", "origin": "https://other.test"},
        refused,
        {"event": "webhook", "tenant": "alice", "prompt_id": "p1", "result": "failed", "note": "answered 500"},
    ]
    trail = refusals.parent / "state" / "audit.jsonl"
    now = datetime.now(UTC).isoformat()
    trail.write_bytes(trail.read_bytes() + b"".join(orjson.dumps({"time": now, **line}) + b"\n" for line in lines))
    for options in (("ee55",), ("--last",)):
        said = run(refusals, *options, command="why").stdout
        assert "Nothing was fetched from https://a.test (unreachable: 10.0.0.1 is not a public address)." in said
        assert "other.test" not in said
        assert said.count("Nothing was fetched") == 1
    assert "was not refused: it got 200" in run(refusals, "p1", command="why").stdout, "and not of its webhook"
    assert "answered 500" in run(refusals).stdout


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("bb22",), 0, "was not refused: it got 200"),
        (("zz99",), 1, "has no request zz99"),
        (("aa11", "--tenant", "bob"), 1, "has no request aa11 of bob"),
        (("--last", "--tenant", "carol"), 1, "has no refusal of carol"),
        ((), 1, "Give a request id, or --last"),
        (("aa11", "--last"), 1, "Give a request id, or --last"),
    ],
)
def test_why_of_what_is_not_there(refusals: Path, options: tuple[str, ...], code: int, expected: str) -> None:
    said = run(refusals, *options, command="why")
    assert (said.exit_code, expected in said.output) == (code, True), said.output


def test_a_terminal_is_sent_no_control_characters(refusals: Path, terminal: None) -> None:
    for said in (run(refusals), run(refusals, "aa11", command="why")):
        assert "Node 3" in said.stdout
        assert "\x1b" not in said.stdout


def test_a_trail_that_may_not_be_read_is_said(refusals: Path) -> None:
    trail = refusals.parent / "state" / "audit.jsonl"
    trail.unlink()
    trail.mkdir()
    said = run(refusals)
    assert said.exit_code == 1
    assert "cannot be read" in said.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file, now = tmp_path / "config.toml", datetime.now(UTC)
    file.write_text('[log]\naudit_file = "audit.jsonl"\naudit_keep = 2\n')
    old, new = ((now - timedelta(days=days)).isoformat() for days in (3, 0.5))
    lines = [
        ("1", old, "job", "alice"),
        ("2", old, "job", "bob"),
        ("3", new, "login", "alice"),
        ("4", new, "job", "bob"),
    ]
    lines.append(("5", new, "config", ""))
    written = [
        orjson.dumps({"n": n, "time": time, "event": event, "tenant": tenant}) for n, time, event, tenant in lines
    ]
    (tmp_path / "audit.jsonl.1").write_bytes(b"\n".join(written[:2]) + b"\n")
    (tmp_path / "audit.jsonl").write_bytes(b"\n".join(written[2:]) + b'\n{"torn')
    return file


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "12345"),
        (("--tenant", "alice"), "13"),
        (("--tenant", "alice", "--since", "1d"), "3"),
        (("--since", "1d"), "345"),
        (("--event", "job"), "124"),
        (("--tenant", "nobody"), ""),
    ],
)
def test_lines_oldest_first(file: Path, options: tuple[str, ...], expected: str) -> None:
    result = run(file, *options)
    assert result.exit_code == 0, result.output
    assert "".join(orjson.loads(line)["n"] for line in result.stdout.splitlines()) == expected


def test_what_is_no_duration_is_told(file: Path) -> None:
    result = run(file, "--since", "yesterday")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "write a duration" in result.stderr


def test_without_a_trail_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[log]\naudit_file = ""\n')
    result = run(tmp_path / "config.toml")
    assert result.exit_code == 1
    assert "log.audit_file" in result.stderr
    assert "cannot be read" in run(tmp_path / "none.toml").stderr

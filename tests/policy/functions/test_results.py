"""A function's job as its door shows it: results, addresses, and which one is given as bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.functions.function import CallableFunction
from policy.functions.results import (
    LABEL,
    Result,
    call_to_client,
    find_result,
    function_of,
    pick,
    result_address,
    results_of,
)
from policy.judge import ADMIN_POLICY
from policy.namespace import Folder
from policy.v2.assets import Asset
from policy.v2.jobs import JobError, JobView, Status
from policy.v2.links import Links
from policy.violation import Reason, Violation
from tests.policy.functions.examples import function

JOB = "00000000-0000-4000-8000-000000000001"
LINKS = Links("https://gate.example", "/p")


def asset(node_id: str, name: str, content_type: str = "image/png") -> Asset:
    return Asset(f"id-{name}", name, content_type, 3, None, 1.0, None, Folder.OUTPUT, name, "image", JOB, node_id)


def job(*outputs: Asset, status: Status = Status.SUCCEEDED, **more: Any) -> JobView:
    ended = 2.0 if status is Status.SUCCEEDED else None
    return JobView(JOB, status, 1.0, 9.0, ended_at_s=ended, outputs=outputs, **more)


MADE = job(asset("2", "a.png"), asset("3", "b.png"), asset("2", "c.webm", "video/webm"), labels={LABEL: "wear"})


def test_results_are_what_the_function_names() -> None:
    found = results_of(MADE, function())
    assert [(each.asset.file_path, each.name, each.index) for each in found] == [
        ("a.png", "result", 0),
        ("c.webm", "result", 1),
    ]
    every = results_of(MADE, None)
    assert [(each.asset.file_path, each.name, each.index) for each in every] == [
        ("a.png", "2", 0),
        ("b.png", "3", 0),
        ("c.webm", "2", 1),
    ]
    assert len(results_of(MADE, function(outputs={}))) == 3


def test_whose_function_it_was() -> None:
    called = {"wear": CallableFunction(function(), ADMIN_POLICY)}
    assert function_of(MADE, called) is called["wear"].function
    assert function_of(MADE, {}) is None
    assert function_of(replace(MADE, labels=None), called) is None


@pytest.mark.parametrize(
    ("name", "index", "file"),
    [("result", 0, "a.png"), ("result", 1, "c.webm"), ("2", 0, "a.png"), ("3", 0, "b.png"), ("b.png", 0, "b.png")],
)
def test_a_result_by_its_name(name: str, index: int, file: str) -> None:
    assert find_result(MADE, function(), name, index).asset.file_path == file


@pytest.mark.parametrize(("name", "index"), [("result", 2), ("9", 0), ("", 0), ("result", 10**6)])
def test_a_result_that_is_none(name: str, index: int) -> None:
    with pytest.raises(Violation, match="There is no such output of this job") as missing:
        find_result(MADE, None if name == "9" else function(), name, index)
    assert missing.value.reason is Reason.NOT_FOUND
    with pytest.raises(Violation, match="no such output yet"):
        find_result(job(status=Status.RUNNING), function(), name, index)


def test_its_addresses() -> None:
    shown = call_to_client(MADE, results_of(MADE, function()), LINKS, 1.5)
    here = f"/p/gate/jobs/{JOB}"
    assert shown["urls"] == {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"}
    assert shown["estimated_start"] == "1970-01-01T00:00:01.500Z"
    assert [(each["output"], each["url"]) for each in shown["outputs"]] == [
        ("result", f"https://gate.example{here}/outputs/result"),
        ("result", f"https://gate.example{here}/outputs/result?index=1"),
    ]
    assert call_to_client(MADE, results_of(MADE, None), LINKS)["outputs"][1]["output"] is None
    assert result_address(LINKS, JOB, Result(asset("a/b?", "x"), "", 0)) == f"{here}/outputs/a%2Fb%3F"


def test_the_one_that_fits() -> None:
    assert pick(MADE, function(), ("image/*",), LINKS).asset.file_path == "a.png"
    assert pick(MADE, function(), ("video/webm",), LINKS).asset.file_path == "c.webm"


@pytest.mark.parametrize(
    ("view", "ranges", "rule"),
    [
        (MADE, ("application/octet-stream",), "2 outputs of the job are of such a type (result): ask for each."),
        (MADE, ("audio/*",), "it made image/png, video/webm: ask for that."),
        (job(), ("image/*",), "it made nothing"),
        (
            job(status=Status.FAILED, error=JobError("x", "It broke.")),
            ("image/*",),
            "The job has failed: It broke. GET",
        ),
        (job(status=Status.FAILED), ("image/*",), "The job has failed. GET"),
        (job(status=Status.CANCELED), ("image/*",), "The job has been canceled. GET"),
        (job(status=Status.RUNNING), ("image/*",), "The job has not ended. GET"),
    ],
)
def test_what_no_bytes_can_be(view: JobView, ranges: tuple[str, ...], rule: str) -> None:
    with pytest.raises(Violation) as refused:
        pick(view, function(), ranges, LINKS)
    assert rule in refused.value.message
    assert (refused.value.reason, refused.value.details) == (Reason.NOT_ACCEPTABLE, f"/p/gate/jobs/{JOB}")

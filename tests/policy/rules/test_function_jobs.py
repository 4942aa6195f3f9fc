"""The jobs of functions, as rules: how they are made, told of, read and canceled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.call import ClaimedJob, RecordJob, UpstreamCall
from policy.functions.delivery import Delivery, Kind
from policy.functions.function import CallableFunction
from policy.needs import read_needs
from policy.rule_context import RuleInput
from policy.rules import functions as rules
from policy.rules import prompt
from policy.rules.function_files import Given
from policy.v2.asset_files import StoredText
from policy.v2.effects import (
    CancelJob,
    DrawSeeds,
    FindAssets,
    ForecastStart,
    ReadJob,
    ReadText,
)
from policy.v2.jobs import Status
from policy.violation import Reason, Violation
from tests.policy.functions.driving import (
    ALICE,
    ASSET,
    GRAPH,
    NOTHING,
    WEAR,
    called,
    refused,
    run,
)
from tests.policy.functions.examples import function
from tests.policy.tenants import EVERYTHING, reply_of, request_of, sent
from tests.policy.v2.examples import JOB, output, view

# The job.


def test_a_job_is_made_by_the_functions_policy_and_not_by_its_tenants() -> None:
    """Of a tenant that sends no workflows of its own, and whose policy permits nothing."""
    asked = called(context=replace(ALICE, policy=NOTHING))
    given = Given({"picture": ASSET.asset_id, "prefix": "me"}, b"")
    accepted = reply_of({"prompt_id": JOB, "number": 1, "node_errors": {}})
    steps, reply = run(rules.submit(asked, given), {ASSET.asset_id: ASSET}, ClaimedJob(JOB), 1.0, accepted)
    find, _, record, call = steps
    assert find == FindAssets((ASSET.asset_id,))
    assert isinstance(record, RecordJob)
    assert record.extras.labels == {"function": "wear", "function_version": WEAR.version}
    assert record.extras.assets == (ASSET.asset_id,)
    assert isinstance(call, UpstreamCall)
    assert sent(call)["prompt"]["1"]["inputs"]["image"] == "tenants/alice/sub/100.png"
    assert sent(call)["prompt"]["2"]["inputs"]["filename_prefix"] == "tenants/alice/me"
    assert (reply.status, reply.body) == (
        200,
        {"prompt_id": JOB, "labels": record.extras.labels, "assets": {"picture": ASSET.asset_id}},
    )


def test_the_labels_that_a_function_asks_for_are_needed() -> None:
    labeled = CallableFunction(function(graph=GRAPH, parameters={}, labels=["24gb"]), EVERYTHING)
    asked = called(context=replace(ALICE, functions={"wear": labeled}, is_placed=True))
    accepted = reply_of({"prompt_id": JOB, "number": 1, "node_errors": {}})
    (_, record, _), _ = run(rules.submit(asked, Given({}, b"")), ClaimedJob(JOB), 1.0, accepted)
    assert read_needs(record.extras.needs).labels == ("24gb",)


def test_an_asset_of_nobodys_is_refused() -> None:
    given = Given({"picture": ASSET.asset_id}, b"")
    _, error = refused(rules.submit(called(), given), {})
    assert (error.reason, error.details) == (Reason.ARGUMENT_REFUSED, "picture")


def test_what_is_drawn_is_told_and_what_comfyui_refuses_is_its_own() -> None:
    wrong = reply_of({"error": {"type": "prompt_no_outputs", "message": "m", "details": "", "extra_info": {}}}, 400)
    graph = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": "own.png", "seed": 1}}}
    parameters = {"seed": {"type": "seed", "fills": ["1.seed"], "max": 6, "min": 1}}
    dice = {"wear": CallableFunction(function(graph=graph, parameters=parameters), EVERYTHING)}
    asked = called(context=replace(ALICE, functions=dice))
    accepted = reply_of({"prompt_id": JOB, "number": 1, "node_errors": {}})
    steps, reply = run(rules.submit(asked, Given({}, b"")), (5,), ClaimedJob(JOB), 1.0, accepted)
    assert steps[0] == DrawSeeds(((1, 6),))
    assert sent(steps[-1])["prompt"]["1"]["inputs"]["seed"] == 5
    assert (reply.body["prompt_id"], reply.body["drawn"]) == (JOB, {"seed": 5})
    _, reply = run(rules.submit(asked, Given({}, b"")), (5,), ClaimedJob(JOB), 1.0, wrong, None)
    assert reply.status == 400


# What is told of it.


def test_what_is_told_at_once_and_when_it_has_ended() -> None:
    accepted = {"prompt_id": JOB, "labels": {"function": "wear"}, "number": 4, "drawn": {"seed": 5}, "node_errors": {}}
    steps, reply = run(rules.tell(called(), accepted, Delivery()), view(queue_position=1), 1500.0)
    assert steps == [ReadJob(JOB, {"function": "wear"}), ForecastStart(JOB)]
    assert reply.status == 202
    assert reply.headers == (("Location", f"/p/gate/jobs/{JOB}"),)
    assert (reply.body["drawn"], reply.body["estimated_start"]) == ({"seed": 5}, "1970-01-01T00:25:00.000Z")
    assert "number" not in reply.body
    ended = view(Status.FAILED, ended_at_s=1001.0)
    _, reply = run(rules.tell(called(), accepted, Delivery(wait_s=5, is_waited_for=True)), ended)
    assert (reply.status, reply.body["status"]) == (200, "failed")
    assert reply.headers[1] == ("Preference-Applied", "wait=5")
    # It was over before anybody could look: whoever did not wait was promised 202.
    assert run(rules.tell(called(), accepted, Delivery()), ended)[1].status == 202


def test_a_job_that_cannot_be_read_was_taken_all_the_same() -> None:
    _, reply = run(rules.tell(called(), {"prompt_id": JOB}, Delivery(wait_s=5)), None, None)
    assert (reply.status, reply.body["id"], reply.body["status"]) == (202, JOB, "queued")


def test_its_result_as_bytes() -> None:
    text = replace(output(folder=None, path="", node_id="2"), content_type="text/plain")
    done = view(Status.SUCCEEDED, ended_at_s=1.0, outputs=(text,), labels={"function": "wear"})
    delivery = Delivery(Kind.BYTES, 5, ("text/plain",))
    steps, found = run(rules.result(called(), JOB, delivery), done, b"words")
    assert steps == [ReadJob(JOB), ReadText(text.asset_id)]
    assert found.file == StoredText(b"words", text.file_path)
    assert found.address == f"/p/gate/jobs/{JOB}/outputs/result"
    _, error = refused(rules.result(called(), JOB, delivery), None)
    assert error.reason is Reason.NOT_FOUND


def of_job(method: str = "GET", query: dict[str, str] | None = None, **parameters: str) -> RuleInput:
    return request_of(ALICE, method=method, query=query, parameters={"job_id": JOB, **parameters})


def test_a_job_is_read_and_canceled() -> None:
    running = view(Status.RUNNING)
    steps, reply = run(rules.read(of_job()), running)
    assert (steps, reply.body["urls"]["self"]) == ([ReadJob(JOB)], f"/p/gate/jobs/{JOB}")
    steps, reply = run(rules.cancel(of_job("POST")), replace(running, status=Status.CANCELING))
    assert (steps, reply.body["status"]) == ([CancelJob(JOB)], "canceling")
    for rule in (rules.read, rules.cancel):
        _, error = refused(rule(of_job()), None)
        assert error.reason is Reason.NOT_FOUND


def test_a_file_of_it() -> None:
    done = view(Status.SUCCEEDED, ended_at_s=1.0, outputs=(output(node_id="2"),), labels={"function": "wear"})
    _, file = run(rules.output(of_job(name="result")), done)
    assert file.path == "tenants/alice/out/x_00001_.png"
    assert file.call.method == "GET"
    _, file = run(rules.output(of_job("HEAD", name="2")), done)
    assert file.call.method == "HEAD"
    _, error = refused(rules.output(of_job(query={"index": "1"}, name="result")), done)
    assert error.reason is Reason.NOT_FOUND
    for index in ("-1", "x", "1" * 7, "\u0661"):
        _, error = refused(rules.output(of_job(query={"index": index}, name="result")))
        assert error.reason is Reason.QUERY_MALFORMED


def test_a_tenant_that_calls_functions_sends_no_workflows() -> None:
    with pytest.raises(Violation, match="/gate/functions") as error:
        next(prompt.submit(called(b'{"prompt": {}}')))
    assert error.value.reason is Reason.POLICY_VIOLATION

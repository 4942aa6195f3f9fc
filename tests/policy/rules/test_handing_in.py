"""How a job is handed in: to ComfyUI where there is room for it; else it waits, after ComfyUI was asked unless its answer is sure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.call import (
    AmendJob,
    ClaimedJob,
    ClaimJob,
    ClientReply,
    Place,
    RecordJob,
    ReleaseJob,
    Tried,
    TryJob,
    UpstreamCall,
    UpstreamReply,
)
from policy.prepared import Prepared
from policy.rule_context import RuleContext
from policy.rules.prompt import LAST_PLACE, MAX_TRIES, submit, without_credentials
from tests.policy.disk import Kept
from tests.policy.tenants import OBJECT_INFO, Jobs, caller_of, drive, reply_of, request_of, sent, uuid_of
from tests.policy.upstream_rule import find_breaches

ID = uuid_of(7)
ALICE = replace(caller_of("alice", jobs=Jobs(waiting=[uuid_of(6), ID])), documents=Kept())
ROOM, NO_ROOM = ClaimedJob(ID, 1234, True, 5), ClaimedJob(ID, 1234, False, 5)
NUMBER = 12.0
PICTURE = {"class_type": "EmptyImage", "inputs": {"width": 64}}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
SURE = {"1": PICTURE, "2": SAVE}
CHECKED = SURE | {"1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}}
"""LoadImage checks by itself."""
BROKEN_BRANCH = SURE | {"3": {"class_type": "SaveImage", "inputs": {"images": ["gone", 0], "filename_prefix": "x"}}}
ACCEPTED = reply_of({"prompt_id": ID, "number": 1, "node_errors": {}})
WRONG = {"3": {"errors": [], "dependent_outputs": ["3"], "class_type": "SaveImage"}}
SPOILED = reply_of({"prompt_id": ID, "number": 1, "node_errors": WRONG})
FAILED = {"type": "prompt_outputs_failed_validation", "message": "no", "details": "", "extra_info": {}}
REFUSED = reply_of({"error": FAILED, "node_errors": {}}, 400)


def handed_in(graph: Any, *answers: Any, context: RuleContext = ALICE, **more: Any) -> tuple[list[Any], ClientReply]:
    """What follows the claim, and what the client hears."""
    raw = json.dumps({"prompt": graph} | more).encode()
    steps, reply = drive(submit(request_of(context, method="POST", raw=raw)), *answers)
    assert isinstance(steps[0], ClaimJob)
    return steps[1:], reply


def kinds(steps: list[Any]) -> list[Any]:
    return [step.place if isinstance(step, RecordJob) else type(step) for step in steps]


@pytest.mark.parametrize("graph", [SURE, CHECKED])
def test_where_there_is_room_the_job_is_on_disk_before_comfyui_gets_it(graph: Any) -> None:
    steps, reply = handed_in(graph, ROOM, NUMBER, ACCEPTED)
    assert kinds(steps) == [Place.NEXT, UpstreamCall]
    record, call = steps
    assert (record.prompt_id, json.loads(record.outputs)) == (ID, ["2"])
    assert sent(call) == json.loads(record.body) | {"prompt_id": ID, "number": NUMBER}
    assert reply.status == 200


def test_a_number_is_a_place_also_when_it_is_zero() -> None:
    steps, _ = handed_in(SURE, ROOM, 0.0, ACCEPTED)
    assert sent(steps[1])["number"] == 0.0


def test_a_job_that_comfyui_refuses_is_off_the_disk_again() -> None:
    steps, reply = handed_in(SURE, ROOM, NUMBER, REFUSED, None)
    assert kinds(steps) == [Place.NEXT, UpstreamCall, ReleaseJob]
    assert steps[2] == ReleaseJob(ID)
    assert (reply.status, reply.updates) == (400, ())


def test_without_room_comfyui_is_asked_and_the_job_waits() -> None:
    steps, reply = handed_in(CHECKED, NO_ROOM, Tried(ACCEPTED), None)
    assert kinds(steps) == [TryJob, Place.WAITING]
    trial, record = steps
    assert (trial.prompt_id, trial.call.method, trial.call.target) == (ID, "POST", "/prompt")
    assert sent(trial.call) == json.loads(record.body) | {"prompt_id": ID, "number": LAST_PLACE + 5}
    assert find_breaches(trial.call.body, OBJECT_INFO, "alice", ()) == []
    assert (record.prompt_id, json.loads(record.outputs)) == (ID, ["2"])
    assert reply.status == 200


def test_two_trials_never_stand_at_one_place() -> None:
    """Numbers of jobs that are only tried are whole, exact, and behind all others."""
    numbers = []
    for sequence in (1, 2, 2**40):
        steps, _ = handed_in(CHECKED, replace(NO_ROOM, sequence=sequence), Tried(REFUSED), None)
        numbers.append(sent(steps[0].call)["number"])
    assert numbers == [2**52 + 1, 2**52 + 2, 2**52 + 2**40]


def test_a_job_of_which_comfyui_will_find_nothing_wrong_waits_at_once() -> None:
    steps, reply = handed_in(SURE, NO_ROOM, None)
    assert kinds(steps) == [Place.WAITING]
    assert json.loads(steps[0].outputs) == ["2"]
    assert reply.body == {"prompt_id": ID, "number": 2, "node_errors": {}}


@pytest.mark.parametrize(("graph", "answers"), [(SURE, (None,)), (CHECKED, (Tried(ACCEPTED), None))])
def test_a_job_whose_room_was_taken_meanwhile_waits_like_any_other(graph: Any, answers: tuple[Any, ...]) -> None:
    """The record says so: no number, and nothing is on disk yet."""
    steps, reply = handed_in(graph, ROOM, None, *answers)
    assert kinds(steps) == [Place.NEXT, *kinds(handed_in(graph, NO_ROOM, *answers)[0])]
    assert reply.body["prompt_id"] == ID


def test_a_job_that_came_to_its_turn_at_its_trial_stays_there() -> None:
    steps, reply = handed_in(CHECKED, NO_ROOM, Tried(ACCEPTED, is_there=True), None)
    assert kinds(steps) == [TryJob, Place.THERE]
    assert reply == handed_in(CHECKED, NO_ROOM, Tried(ACCEPTED), None)[1]


def test_a_job_that_would_run_at_its_trial_is_handed_in_where_there_is_room_by_now() -> None:
    steps, reply = handed_in(CHECKED, NO_ROOM, None, NUMBER, ACCEPTED)
    assert kinds(steps) == [TryJob, Place.NEXT, UpstreamCall]
    assert sent(steps[2])["number"] == NUMBER
    assert reply == handed_in(CHECKED, ROOM, NUMBER, ACCEPTED)[1]


def test_where_the_room_is_taken_again_it_is_tried_again() -> None:
    steps, reply = handed_in(CHECKED, NO_ROOM, None, None, Tried(ACCEPTED), None)
    assert kinds(steps) == [TryJob, Place.NEXT, TryJob, Place.WAITING]
    assert reply.status == 200


def test_a_job_that_can_be_neither_sent_nor_tried_is_not_taken() -> None:
    steps, reply = handed_in(CHECKED, NO_ROOM, *[None] * 2 * MAX_TRIES)
    assert kinds(steps) == [TryJob, *[Place.NEXT, TryJob] * (MAX_TRIES - 1), ReleaseJob]
    assert (reply.status, reply.headers, reply.updates) == (503, (("Retry-After", "1"),), ())
    assert (reply.body["error"]["type"], reply.body["node_errors"]) == ("upstream_busy", {})


@pytest.mark.parametrize("reply", [REFUSED, UpstreamReply(500, None, b"500", "text/plain")])
def test_what_fails_at_its_trial_never_comes_to_the_disk(reply: UpstreamReply) -> None:
    steps, told = handed_in(CHECKED, NO_ROOM, Tried(reply), None)
    assert kinds(steps) == [TryJob, ReleaseJob]
    assert steps[1] == ReleaseJob(ID)
    assert (told.status, told.updates) == (reply.status, ())
    assert told == handed_in(CHECKED, ROOM, NUMBER, reply, None)[1]


def test_a_client_cannot_tell_how_its_job_was_handed_in() -> None:
    ways = [
        handed_in(SURE, ROOM, NUMBER, ACCEPTED),
        handed_in(SURE, NO_ROOM, None),
        handed_in(SURE, ROOM, None, None),
    ]
    assert len({json.dumps(reply.body) for _, reply in ways}) == 1
    assert len({reply.updates[0].documents[0].numbered(1) for _, reply in ways}) == 1
    spoiled = [
        handed_in(SURE | {"3": SAVE}, ROOM, NUMBER, SPOILED, None),
        handed_in(CHECKED | {"3": SAVE}, NO_ROOM, Tried(SPOILED), None),
        handed_in(CHECKED | {"3": SAVE}, NO_ROOM, Tried(SPOILED, is_there=True), None),
    ]
    assert len({json.dumps(reply.body) for _, reply in spoiled}) == 1
    assert spoiled[0][1].body["node_errors"].keys() == {"3"}


def test_outputs_that_comfyui_turns_out_not_to_run_are_taken_off_the_record() -> None:
    steps, _ = handed_in(SURE | {"3": SAVE}, ROOM, NUMBER, SPOILED, None)
    assert kinds(steps) == [Place.NEXT, UpstreamCall, AmendJob]
    assert json.loads(steps[0].outputs) == ["2", "3"]
    assert steps[2] == AmendJob(ID, b'["2"]')


def test_outputs_that_comfyui_will_not_run_are_not_recorded_as_the_jobs() -> None:
    steps, reply = handed_in(CHECKED | {"3": SAVE}, NO_ROOM, Tried(SPOILED), None)
    assert json.loads(steps[1].outputs) == ["2"]
    ((document,),) = (update.documents for update in reply.updates)
    assert json.loads(document.numbered(1))[4] == ["2"]


def test_only_the_outputs_that_were_asked_for_are_recorded() -> None:
    steps, _ = handed_in(SURE | {"3": SAVE}, NO_ROOM, None, partial_execution_targets=["3"])
    assert kinds(steps) == [Place.WAITING]
    assert json.loads(steps[0].outputs) == ["3"]
    assert json.loads(steps[0].body)["partial_execution_targets"] == ["3"]


def test_a_workflow_of_which_something_was_left_out_is_tried() -> None:
    """Also where what is left of it is sure: its errors are those that ComfyUI finds too."""
    steps, reply = handed_in(BROKEN_BRANCH, NO_ROOM, Tried(ACCEPTED), None)
    assert kinds(steps) == [TryJob, Place.WAITING]
    assert reply.body["node_errors"].keys() == {"3"}


def test_a_workflow_that_is_prepared_knows_whether_comfyui_is_sure_to_take_it() -> None:
    for graph, is_sure in ((SURE, True), (CHECKED, False), (BROKEN_BRANCH, False), ({"1": PICTURE}, False)):
        step = next(submit(request_of(ALICE, raw=json.dumps({"prompt": graph, "pad": "x" * 300_000}).encode())))
        prepared = step.function()  # type: ignore[union-attr]
        assert isinstance(prepared, Prepared)
        assert prepared.is_sure is is_sure


def test_what_is_kept_of_a_failed_job_has_no_keys_of_paid_services() -> None:
    plain = b'{"prompt":{},"extra_data":{"client_id":"alice.tab"}}'
    assert without_credentials(plain) == plain
    paid = orjson.dumps({"prompt": {}, "extra_data": {"client_id": "alice.tab", "api_key_comfy_org": "secret"}})
    assert without_credentials(paid) == plain


@pytest.mark.parametrize("differing", [frozenset(), frozenset({"EmptyImage"})])
def test_of_a_class_that_is_not_the_same_everywhere_comfyui_is_asked(differing: frozenset[str]) -> None:
    context = replace(ALICE, catalogue=replace(ALICE.catalogue, differing=differing))
    answers = [Tried(ACCEPTED, False), None] if differing else [None]
    steps, _ = handed_in(SURE, NO_ROOM, *answers, context=context)
    assert kinds(steps) == ([TryJob, Place.WAITING] if differing else [Place.WAITING])

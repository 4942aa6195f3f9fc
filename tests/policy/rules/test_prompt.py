from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from policy.call import (
    AmendJob,
    CheckTempFiles,
    ClaimedJob,
    ClaimJob,
    ClientReply,
    NameJob,
    ReleaseJob,
    UpstreamCall,
    UpstreamPath,
    UpstreamReply,
    Work,
)
from policy.documents import Document, Kind
from policy.keyform import presented
from policy.patience import AT_ONCE_BYTES, AT_ONCE_EFFORT
from policy.principal import Role
from policy.rule_context import RuleContext
from policy.rules.prompt import LARGE_BYTES, node_errors_to_client, submit, submit_as_admin
from policy.rules.results import UNNAMED_CLIENT
from policy.salt import SALT
from policy.violation import Reason
from tests.policy.tenants import Jobs, caller_of, drive, is_refused, refusal, reply_of, request_of, sent, uuid_of

ID = uuid_of(7)
MINTED = uuid_of(8)
ALICE = caller_of("alice", jobs=Jobs(ended=[uuid_of(1), uuid_of(2)], waiting=[ID]))
ADMIN = caller_of("ops", Role.ADMIN)
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out/x"}},
}
UPSTREAM_GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "tenants/alice/photo.png", SALT: "alice"}},
    "2": {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "tenants/alice/out/x", SALT: "alice"},
    },
}
ACCEPTED = reply_of({"prompt_id": ID, "number": 512.25, "node_errors": {}})
CLAIMED = ClaimedJob(ID)
NUMBER = 512.25


def body_of(graph: Any = GRAPH, **more: Any) -> bytes:
    return json.dumps({"prompt": graph} | more).encode()


def submitted(
    raw: bytes, reply: UpstreamReply = ACCEPTED, context: RuleContext = ALICE, *, is_amended: bool = False
) -> tuple[list[Any], ClientReply]:
    """is_amended: ComfyUI runs less of it than was asked for."""
    answers = [CLAIMED, NUMBER, reply] + ([None] if reply.status != 200 or is_amended else [])
    return drive(submit(request_of(context, method="POST", raw=raw)), *answers)


def test_a_workflow_goes_on_in_the_tenants_names() -> None:
    steps, reply = submitted(body_of(client_id="tab"))
    claim, record, call = steps
    assert isinstance(claim, ClaimJob)
    assert (claim.prompt_id, claim.priority) == (None, 0.0)
    assert claim.workflow
    assert (call.method, call.target, call.content_type) == ("POST", "/prompt", "application/json")
    assert sent(call) == {
        "prompt": UPSTREAM_GRAPH,
        "client_id": "alice.tab",
        "extra_data": {"client_id": "alice.tab"},
        "prompt_id": ID,
        "number": NUMBER,
    }
    assert json.loads(record.body) == {
        key: value for key, value in sent(call).items() if key not in ("prompt_id", "number")
    }
    assert json.loads(record.originals) == [["1", "image", "photo.png"], ["2", "filename_prefix", "out/x"]]
    assert reply == ClientReply(body={"prompt_id": ID, "number": 3, "node_errors": {}})


def test_a_preview_that_a_workflow_reads_is_asked_for_before() -> None:
    graph = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": "made.png [temp]"}}}
    jobs = Jobs(temp={"made.png"})
    request = request_of(caller_of("alice", jobs=jobs), method="POST", raw=body_of(graph))
    (asked, _, _, call), _ = drive(submit(request), True, CLAIMED, NUMBER, ACCEPTED)
    assert asked == CheckTempFiles((UpstreamPath("made.png"),))
    assert sent(call)["prompt"]["1"]["inputs"]["image"] == "made.png [temp]"


def test_one_that_was_lost_is_a_name_that_never_was() -> None:
    graph = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": "made.png [temp]"}}}
    jobs = Jobs(temp={"made.png"})
    dialogue = submit(request_of(caller_of("alice", jobs=jobs), method="POST", raw=body_of(graph)))
    assert next(dialogue) == CheckTempFiles((UpstreamPath("made.png"),))
    jobs.temp.clear()
    assert isinstance(dialogue.send(False), ClaimJob)
    dialogue.send(CLAIMED)
    call = dialogue.send(NUMBER)
    assert isinstance(call, UpstreamCall)
    assert sent(call)["prompt"]["1"]["inputs"]["image"] == "tenants/alice/made.png [temp]"


def test_an_ordinary_workflow_is_judged_at_once() -> None:
    assert isinstance(next(submit(request_of(ALICE, raw=body_of()))), ClaimJob)


@pytest.mark.parametrize("inputs", [{"x" * AT_ONCE_BYTES: 1}, {f"x{number}": 1 for number in range(AT_ONCE_EFFORT)}])
def test_what_takes_long_is_done_beside_the_event_loop(inputs: dict[str, Any]) -> None:
    graph = GRAPH | {"3": {"class_type": "EmptyImage", "inputs": inputs}}
    judging = next(submit(request_of(ALICE, raw=body_of(graph))))
    assert isinstance(judging, Work)
    assert judging.size >= LARGE_BYTES
    prepared = judging.function()
    assert json.loads(prepared.body)["prompt"]["1"] == UPSTREAM_GRAPH["1"]


def test_a_credential_in_a_workflow_is_found_where_it_is_read() -> None:
    key = "cg_0123abcd_" + "A" * 43
    for rule, context in ((submit, ALICE), (submit_as_admin, ADMIN)):
        request = replace(request_of(context, raw=body_of(client_id=key)), credentials=presented([key]))
        assert is_refused(rule, request, reason=Reason.CREDENTIAL_MISPLACED)
        raw = body_of(extra_data={"api_key_comfy_org": key})
        request = replace(request_of(context, method="POST", raw=raw), credentials=presented([key]))
        answers = [CLAIMED, NUMBER, ACCEPTED] if rule is submit else [ACCEPTED]
        steps, reply = drive(rule(request), *answers)
        assert key not in str(sent(steps[-1]))
        shown = reply.body if isinstance(reply.body, dict) else json.loads(reply.body)
        assert [notice["type"] for notice in shown["notices"]] == ["credential-left-out"]


def test_parts_are_counted_before_a_workflow_is_read() -> None:
    for rule, context in ((submit, ALICE), (submit_as_admin, ADMIN)):
        request = replace(request_of(context, raw=body_of()), max_parts=3)
        assert "at most 3 values" in refusal(rule, request).details


@dataclass(frozen=True)
class Shelf:
    """Has this much room for what is not packed yet."""

    room: int

    def get(self, kind: Kind, prompt_id: str) -> Document | None:
        return None

    def has_room(self, size: int) -> bool:
        return size <= self.room


def test_what_waits_is_kept_as_it_was_sent_while_there_is_room() -> None:
    reply = submitted(body_of(client_id="tab"), context=replace(ALICE, documents=Shelf(10_000)))[1]
    ((update),) = reply.updates
    ((item),) = update.documents
    assert item.write is not None, "not before it is asked for"
    extra = {"client_id": "tab", "create_time": 0}
    assert json.loads(item.numbered(5)) == [5, ID, GRAPH, extra, ["2"]]
    assert not submitted(body_of(client_id="tab"), context=replace(ALICE, documents=Shelf(0)))[1].updates


def test_outputs_that_comfyui_will_not_run_are_none_of_the_jobs() -> None:
    graph = GRAPH | {"3": GRAPH["2"], "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    errors = {"3": {"errors": [], "dependent_outputs": ["3", 5], "class_type": "SaveImage"}, "5": "odd", "6": {}}
    context = replace(ALICE, documents=Shelf(10_000))
    accepted = reply_of({"prompt_id": ID, "number": 1, "node_errors": errors})
    steps, reply = submitted(body_of(graph), accepted, context=context, is_amended=True)
    assert json.loads(reply.updates[0].documents[0].numbered(1))[4] == ["2", "4"]
    assert steps[-1] == AmendJob(ID, b'["2","4"]'), "what is on disk says the same"
    reply = submitted(body_of(graph, partial_execution_targets=["4"]), context=context)[1]
    assert json.loads(reply.updates[0].documents[0].numbered(1))[4] == ["4"]


def test_the_place_is_the_jobs_among_its_tenants_own() -> None:
    context = caller_of("alice", jobs=Jobs(ended=[uuid_of(1)], waiting=[ID, uuid_of(9)]))
    assert submitted(body_of(), context=context)[1].body["number"] == 2


@pytest.mark.parametrize(
    ("more", "client_id"),
    [
        ({"client_id": "tab"}, "alice.tab"),
        ({"extra_data": {"client_id": "tab"}}, "alice.tab"),
        ({}, f"alice.{UNNAMED_CLIENT}"),
        ({"client_id": None}, f"alice.{UNNAMED_CLIENT}"),
        ({"client_id": ""}, f"alice.{UNNAMED_CLIENT}"),
        ({"client_id": "bob.tab"}, "alice.bob.tab"),
    ],
)
def test_the_client_id_always_names_the_tenant(more: dict[str, Any], client_id: str) -> None:
    document = sent(submitted(body_of(**more))[0][2])
    assert document["client_id"] == document["extra_data"]["client_id"] == client_id


def test_what_the_client_says_of_its_place_is_dropped() -> None:
    raw = body_of(number=-1000, front=True, prompt_id=uuid_of(5), priority=3, partial_execution_targets=["2"], hook="x")
    steps = submitted(raw)[0]
    assert (steps[0].prompt_id, steps[0].priority) == (uuid_of(5), 3.0)
    document = sent(steps[2])
    assert (document["prompt_id"], document["number"]) == (ID, NUMBER)
    assert document["partial_execution_targets"] == ["2"]
    assert not {"front", "priority", "hook"} & document.keys()


def test_what_was_left_out_is_told_beside_the_answer() -> None:
    graph = GRAPH | {"3": {"class_type": "LoadImage", "inputs": {"image": ["gone", 0]}}}
    steps, reply = submitted(body_of(graph))
    assert sent(steps[2])["prompt"] == UPSTREAM_GRAPH
    assert [notice["type"] for notice in reply.body["notices"]] == ["nodes-left-out"]
    assert submitted(body_of(graph), reply_of({"error": {}}, 400))[1].body["notices"] == reply.body["notices"]


def test_outputs_that_cannot_run_are_named_beside_what_comfyui_finds() -> None:
    graph = GRAPH | {"3": {"class_type": "SaveImage", "inputs": {"images": ["gone", 0], "filename_prefix": "x"}}}
    error = node_error("required_input_missing", "images", input_name="images")
    errors = {"2": {"errors": [error], "dependent_outputs": ["2"], "class_type": "SaveImage"}}
    accepted = reply_of({"prompt_id": ID, "number": 1, "node_errors": errors})
    reply = submitted(body_of(graph), accepted, is_amended=True)[1]
    assert set(reply.body["node_errors"]) == {"2", "3"}
    assert reply.body["node_errors"]["3"]["errors"][0]["type"] == "exception_during_validation"


def test_extra_data_is_kept_as_judged() -> None:
    raw = body_of(extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}, "create_time": 5})
    assert sent(submitted(raw)[0][2])["extra_data"] == {
        "extra_pnginfo": {"workflow": {"id": "w"}},
        "client_id": f"alice.{UNNAMED_CLIENT}",
    }


@pytest.mark.parametrize(
    "prompt_id", ["x", "../x", uuid_of(5).replace("-", ""), "ABCDEF00-0000-4000-8000-000000000005", ""]
)
def test_an_id_in_another_spelling_is_refused(prompt_id: str) -> None:
    request = request_of(ALICE, raw=body_of(prompt_id=prompt_id))
    assert is_refused(submit, request, reason=Reason.WORKFLOW_MALFORMED)


def test_a_refused_workflow_is_never_claimed() -> None:
    assert is_refused(submit, request_of(ALICE, raw=b"nonsense"), reason=Reason.BODY_MALFORMED)
    graph = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": "../bob/x.png"}}}
    violation = refusal(submit, request_of(ALICE, raw=body_of(graph)))
    assert violation.reason is Reason.POLICY_VIOLATION
    assert violation.node_errors.keys() == {"1"}
    assert is_refused(submit, request_of(ALICE, raw=body_of(client_id="a" * 129)), reason=Reason.NAME_REFUSED)


def node_error(kind: str, details: str, **extra: Any) -> dict[str, Any]:
    return {"type": kind, "message": "m", "details": details, "extra_info": extra}


def test_a_refusal_of_comfyui_comes_in_the_tenants_names() -> None:
    error = {
        "type": "prompt_outputs_failed_validation",
        "message": "at /opt/comfy/x.py",
        "details": "",
        "extra_info": {},
    }
    custom = node_error(
        "custom_validation_failed", "image - Invalid image file: tenants/alice/photo.png", input_name="image"
    )
    value = {
        "error": error,
        "node_errors": {"1": {"errors": [custom], "dependent_outputs": ["2"], "class_type": "LoadImage"}},
    }
    steps, reply = submitted(body_of(), reply_of(value, 400))
    assert steps[3] == ReleaseJob(ID)
    assert reply.status == 400
    assert reply.body == {
        "error": error | {"message": "at x.py"},
        "node_errors": {
            "1": {
                "errors": [custom | {"details": "image - Invalid image file: photo.png"}],
                "dependent_outputs": ["2"],
                "class_type": "LoadImage",
            }
        },
    }


@pytest.mark.parametrize("value", [None, [], {"error": "text"}])
def test_a_failure_without_words_gets_some(value: Any) -> None:
    steps, reply = submitted(body_of(), UpstreamReply(500, value, b"500 Internal Server Error", "text/plain"))
    assert steps[3] == ReleaseJob(ID)
    assert reply.status == 500
    assert reply.body["error"]["type"] == "upstream_error"
    assert reply.body["node_errors"] == {}


def test_warnings_of_an_accepted_workflow_are_shown() -> None:
    error = node_error("required_input_missing", "images", input_name="images")
    errors = {"2": {"errors": [error], "dependent_outputs": ["2"], "class_type": "SaveImage"}}
    accepted = reply_of({"prompt_id": ID, "number": 1, "node_errors": errors})
    reply = submitted(body_of(), accepted, is_amended=True)[1]
    assert reply.body["node_errors"] == errors
    assert submitted(body_of(), reply_of("odd"))[1].body["node_errors"] == {}


@pytest.mark.parametrize(
    ("class_type", "name", "is_told"),
    [
        ("LoadImage", "image", False),
        ("GeminiInputFiles", "file", False),
        ("CheckpointLoaderSimple", "ckpt_name", True),
        ("CheckpointLoaderSimple", "undeclared", False),
        ("CheckpointLoaderSimple", None, False),
        ("Gone", "x", False),
    ],
)
def test_lists_of_files_are_not_told(class_type: str, name: str | None, is_told: bool) -> None:
    details = f"{name}: 'x' not in ['bob-secret.png']"
    error = node_error(
        "value_not_in_list", details, input_name=name, input_config=[["bob-secret.png"], {}], received_value="x"
    )
    told = {"1": {"errors": [error], "class_type": class_type}}
    shown = node_errors_to_client(told, ALICE, {"1": {"class_type": class_type, "inputs": {}}})["1"]["errors"][0]
    assert ("bob-secret" in str(shown)) is is_told
    assert shown["details"] == (details if is_told else f"{name}: 'x' is not in the list")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, {}),
        ([], {}),
        ({"1": "x"}, {}),
        ({"9": {}}, {"9": {"errors": [], "dependent_outputs": None, "class_type": None}}),
        ({"1": {"errors": ["x", {"extra_info": "x"}]}}, {"1": {"errors": [{"extra_info": {}}], "dependent_outputs": None, "class_type": None}}),
    ],
)  # fmt: skip
def test_node_errors_that_are_not_understood_are_left_out(value: Any, shown: Any) -> None:
    assert node_errors_to_client(value, ALICE, GRAPH) == shown


def test_tracebacks_of_a_validation_are_scrubbed() -> None:
    error = node_error("exception_during_validation", "x", traceback=['  File "/opt/comfy/execution.py", line 1'])
    shown = node_errors_to_client({"1": {"errors": [error]}}, ALICE, GRAPH)
    assert shown["1"]["errors"][0]["extra_info"] == {"traceback": ['  File "execution.py", line 1']}


def submitted_by_admin(raw: bytes) -> tuple[dict[str, Any], ClientReply]:
    steps, reply = drive(submit_as_admin(request_of(ADMIN, method="POST", raw=raw)), ACCEPTED)
    document: dict[str, Any] = sent(steps[0])
    return document, reply


def test_an_admins_workflow_keeps_its_names() -> None:
    document, reply = submitted_by_admin(body_of(client_id="tab", number=-3.5, front=True, extra_data={"x": 1}))
    assert document == {
        "prompt": GRAPH,
        "client_id": "tab",
        "extra_data": {"x": 1, "client_id": "tab"},
        "number": -3.5,
        "front": True,
    }
    assert reply == ClientReply(200, ACCEPTED.body)


@pytest.mark.parametrize(
    "more", [{"number": "1"}, {"number": True}, {"number": None}, {"front": "no"}, {"front": False}]
)
def test_odd_places_are_dropped(more: dict[str, Any]) -> None:
    assert submitted_by_admin(body_of(**more))[0] == {"prompt": GRAPH, "extra_data": {}}


def test_an_admin_is_told_what_was_left_out() -> None:
    graph = GRAPH | {"3": {"class_type": "SaveImage", "inputs": {"images": ["gone", 0]}}}
    document, reply = submitted_by_admin(body_of(graph))
    assert document["prompt"] == GRAPH
    assert reply.body["prompt_id"] == ID
    assert reply.body["node_errors"].keys() == {"3"}
    assert [notice["type"] for notice in reply.body["notices"]] == ["nodes-left-out"]


def test_an_admin_cannot_queue_two_equal_places() -> None:
    document = submitted_by_admin(body_of(number=5, prompt_id=ID))[0]
    assert document == {"prompt": GRAPH, "extra_data": {}, "prompt_id": ID}


@pytest.mark.parametrize(("more", "prompt_id"), [({"number": 5}, MINTED), ({"prompt_id": ID}, ID)])
def test_an_admins_job_has_a_known_id_where_one_was_made_for_it(more: dict[str, Any], prompt_id: str) -> None:
    request = replace(request_of(ADMIN, method="POST", raw=body_of(**more)), minted_id=MINTED)
    steps, _ = drive(submit_as_admin(request), None, ACCEPTED)
    assert steps[0] == NameJob(prompt_id)
    assert sent(steps[1]) == {"prompt": GRAPH, "extra_data": {}, **more, "prompt_id": prompt_id}


def test_an_admins_workflow_is_judged_too() -> None:
    graph = GRAPH | {"3": {"class_type": "SaveImage"}}
    assert is_refused(submit_as_admin, request_of(ADMIN, raw=body_of(graph)), reason=Reason.WORKFLOW_MALFORMED)
    assert is_refused(submit_as_admin, request_of(ADMIN, raw=b"[]"), reason=Reason.WORKFLOW_MALFORMED)
    assert is_refused(submit_as_admin, request_of(ADMIN, raw=body_of(prompt_id="x")), reason=Reason.WORKFLOW_MALFORMED)

"""/api/v2/jobs: submissions, the list, one job, its cancellation and its workflow, as rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.call import ClaimedJob, ClaimJob, ClientReply, JobExtras, RecordJob, ReleaseJob, UpstreamCall, UpstreamReply
from policy.keyform import presented
from policy.rule_context import RuleContext, RuleInput
from policy.rules import v2_jobs as rules
from policy.rules.prompt import MAX_TRIES
from policy.salt import SALT
from policy.v2.effects import CancelJob, FindAssets, ReadJob
from policy.v2.jobs import JobView, Status, job_to_client, write_job
from policy.v2.links import Links
from policy.violation import Reason, Violation
from tests.policy.disk import Disk, Kept, entries, items, reading
from tests.policy.tenants import Jobs, caller_of, drive, is_refused, refusal, reply_of, request_of, sent, uuid_of
from tests.policy.v2.examples import JOB, LINKS, output, reference, upload, view

OTHER = uuid_of(2)
LETTERS = "00000000-0000-4000-8000-abcdefabcdef"
ALICE = caller_of("alice", links=LINKS, jobs=Jobs(waiting=[JOB]))
GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
WITH_ASSET = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": reference(uuid_of(100))}}}
NUMBER = 512.25
ACCEPTED = reply_of({"prompt_id": JOB, "number": 1, "node_errors": {}})
ERRORS = {
    "2": {
        "errors": [{"type": "value_smaller_than_min", "extra_info": {}}],
        "dependent_outputs": ["2"],
        "class_type": "SaveImage",
    }
}
REFUSED = reply_of(
    {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Failed.", "details": "", "extra_info": {}},
        "node_errors": ERRORS,
    },
    400,
)
BROKEN = UpstreamReply(500, None, b"broken", "text/plain")


def body_of(workflow: Any = GRAPH, **more: Any) -> bytes:
    return orjson.dumps({"workflow": workflow} | more)


def asked(raw: bytes, context: RuleContext = ALICE) -> RuleInput:
    return request_of(context, method="POST", raw=raw)


def submitted(raw: bytes, *answers: Any, context: RuleContext = ALICE) -> tuple[list[Any], ClientReply]:
    """With room in ComfyUI's queue; answers: of what comes before that."""
    return drive(rules.submit(asked(raw, context)), *answers, ClaimedJob(JOB), NUMBER, ACCEPTED, view())


def of_job(job_id: str = JOB, context: RuleContext = ALICE) -> RuleInput:
    return request_of(context, parameters={"job_id": job_id})


def test_a_submission_goes_the_way_of_every_job() -> None:
    steps, reply = submitted(body_of(metadata={"client": "acme"}))
    claim, record, call, read = steps
    assert isinstance(claim, ClaimJob)
    assert (claim.prompt_id, claim.client_id) == (None, "api-v2")
    assert isinstance(record, RecordJob)
    assert record.extras == JobExtras({"client": "acme"}, ())
    assert isinstance(call, UpstreamCall)
    assert sent(call)["prompt"]["1"]["inputs"] == {"image": "tenants/alice/photo.png", SALT: "alice"}
    assert sent(call)["client_id"] == "alice.api-v2"
    assert read == ReadJob(JOB, {"client": "acme"})
    assert (reply.status, reply.body) == (201, job_to_client(view(), LINKS))


def test_a_job_that_is_gone_at_once_was_taken_all_the_same() -> None:
    """Its tenant may delete it in this moment."""
    _, reply = drive(rules.submit(asked(body_of(metadata={"a": "b"}))), ClaimedJob(JOB), NUMBER, ACCEPTED, None)
    assert reply.status == 201
    assert (reply.body["id"], reply.body["status"], reply.body["metadata"]) == (JOB, "queued", {"a": "b"})


def test_labels_are_no_part_of_what_comfyui_gets() -> None:
    steps, _ = submitted(body_of(metadata={"canary": "canary-text"}))
    assert "canary" not in str(sent(steps[2]))
    assert b"canary" not in steps[1].body


def test_a_key_of_paid_services_goes_on_as_it_does_natively() -> None:
    """No class of this workflow calls a paid service, so the key goes nowhere."""
    steps, reply = submitted(body_of(extra_data={"api_key_comfy_org": "comfyui-secret-of-alice"}))
    assert "comfyui-secret" not in str(sent(steps[2]))
    assert b"comfyui-secret" not in steps[1].body
    assert "comfyui-secret" not in str(reply)


@pytest.mark.parametrize("extra", [None, {}, {"api_key_comfy_org": ""}, {"api_key_comfy_org": "x"}])
def test_no_more_is_taken_beside_the_workflow(extra: Any) -> None:
    assert submitted(body_of(extra_data=extra, metadata=None))[1].status == 201


def test_what_means_nothing_here_is_passed_over_and_told() -> None:
    _, reply = submitted(body_of(priority=9, model="x"))
    assert reply.status == 201
    assert [notice["message"].partition(" ")[0] for notice in reply.body["notices"]] == ["`priority`", "`model`"]


@pytest.mark.parametrize(
    "extra",
    [
        *([], "x", 1, True, {"api_key_comfy_org": None}, {"api_key_comfy_org": 1}, {"auth_token_comfy_org": "x"}),
        *({"api_key_comfy_org": "x", "client_id": "bob.tab"}, {"extra_pnginfo": {}}, {"priority": 9}),
    ],
)
def test_extra_data_is_a_closed_object(extra: Any) -> None:
    violation = refusal(rules.submit, asked(body_of(extra_data=extra)))
    assert (violation.reason, violation.details) == (Reason.WORKFLOW_MALFORMED, "extra_data")


@pytest.mark.parametrize("name", ["inputs", "webhook_url"])
@pytest.mark.parametrize("value", [None, {}, "https://example.com"])
def test_reserved_fields_are_refused_when_they_are_there(name: str, value: Any) -> None:
    violation = refusal(rules.submit, asked(body_of(**{name: value})))
    assert (violation.reason, violation.details) == (Reason.WORKFLOW_MALFORMED, name)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'"x"', b"1", b"{", b'{"workflow":{},"workflow":{}}', b"\xff"])
def test_what_is_no_object_is_a_malformed_body(raw: bytes) -> None:
    assert is_refused(rules.submit, asked(raw), reason=Reason.BODY_MALFORMED)


def test_a_document_of_too_many_parts_is_refused_before_it_is_read() -> None:
    assert "at most 3 values" in refusal(rules.submit, replace(asked(body_of()), max_parts=3)).details


@pytest.mark.parametrize("raw", [b"{}", b'{"prompt":{}}', b'{"metadata":{}}'])
def test_a_submission_has_a_workflow(raw: bytes) -> None:
    violation = refusal(rules.submit, asked(raw))
    assert (violation.reason, violation.details) == (Reason.WORKFLOW_MALFORMED, "workflow")


@pytest.mark.parametrize(
    "workflow", [None, {}, [], "x", 1, {"1": None}, {"1": {"class_type": "Unknown", "inputs": {}}}]
)
def test_a_workflow_that_is_none_is_judged_as_natively(workflow: Any) -> None:
    reason = refusal(rules.submit, asked(body_of(workflow))).reason
    assert reason in (Reason.WORKFLOW_MALFORMED, Reason.POLICY_VIOLATION)


def test_the_web_uis_own_format_is_told_by_its_name() -> None:
    violation = refusal(rules.submit, asked(body_of({"nodes": [], "links": [], "last_node_id": 1, "version": 0.4})))
    assert violation.reason is Reason.WORKFLOW_MALFORMED
    assert "ui-format" in {code for code, _ in violation.general}


def test_labels_that_are_none_are_refused_before_anything_is_claimed() -> None:
    assert is_refused(rules.submit, asked(body_of(metadata={"a": 1})), reason=Reason.METADATA_INVALID)


def test_a_client_with_one_field_for_a_key_is_told() -> None:
    key = "cg_0123abcd_" + "A" * 43
    request = replace(asked(body_of(extra_data={"api_key_comfy_org": key})), credentials=presented([key]))
    _, reply = drive(rules.submit(request), ClaimedJob(JOB), NUMBER, ACCEPTED, view())
    assert reply.status == 201
    assert [notice["type"] for notice in reply.body["notices"]] == ["credential-left-out"]
    for more in ({"metadata": {"a": key}}, {"workflow": {"1": {"class_type": "X", "inputs": {"a": key}}}}):
        request = replace(asked(body_of(**more)), credentials=presented([key]))
        assert is_refused(rules.submit, request, reason=Reason.CREDENTIAL_MISPLACED)


def test_assets_are_names_before_the_policy_judges() -> None:
    asset = upload(path="sub/photo.png")
    steps, reply = submitted(body_of(WITH_ASSET), {asset.asset_id: asset})
    assert steps[0] == FindAssets((asset.asset_id,))
    assert steps[2].extras == JobExtras({}, (asset.asset_id,))
    assert sent(steps[3])["prompt"]["1"]["inputs"]["image"] == "tenants/alice/sub/photo.png"
    assert "core/ASSET" not in str(sent(steps[3]))
    assert reply.status == 201


def test_an_output_is_an_input_where_it_lies() -> None:
    made = output(path="out/x.png")
    workflow = GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": reference(made.asset_id)}}}
    steps, _ = submitted(body_of(workflow), {made.asset_id: made})
    assert sent(steps[3])["prompt"]["1"]["inputs"]["image"] == "tenants/alice/out/x.png [output]"


def test_an_asset_that_is_not_there_leaves_nothing_claimed() -> None:
    """SECURITY: a neighbour's is answered as one that nobody has; whose it is the database knows alone."""
    dialogue = rules.submit(asked(body_of(WITH_ASSET)))
    with pytest.raises(Violation) as missing:
        drive(dialogue, {})
    assert (missing.value.reason, missing.value.details) == (Reason.MISSING_ASSET, uuid_of(100))


def test_what_of_a_workflow_comfyui_does_not_run_is_told() -> None:
    partly = reply_of({"prompt_id": JOB, "number": 1, "node_errors": ERRORS})
    _, reply = drive(rules.submit(asked(body_of())), ClaimedJob(JOB), NUMBER, partly, None, view())
    assert reply.status == 201
    assert reply.body["node_errors"] == ERRORS
    assert reply.body["id"] == JOB
    assert "node_errors" not in submitted(body_of())[1].body


def test_comfyuis_refusal_is_an_invalid_workflow_with_its_nodes() -> None:
    dialogue = rules.submit(asked(body_of()))
    with pytest.raises(Violation) as refused:
        drive(dialogue, ClaimedJob(JOB), NUMBER, REFUSED, None)
    assert refused.value.reason is Reason.WORKFLOW_MALFORMED
    assert refused.value.message == "Failed."
    assert refused.value.node_errors == ERRORS


def test_an_answer_that_is_no_verdict_is_none_about_the_workflow() -> None:
    _, reply = drive(rules.submit(asked(body_of())), ClaimedJob(JOB), NUMBER, BROKEN, None)
    assert (reply.status, reply.body["error"]["code"]) == (503, "upstream_error")
    assert dict(reply.headers)["Retry-After"]


def test_a_comfyui_that_cannot_take_it_now_is_a_full_queue() -> None:
    """The SDKs send again what comes with these words and a time to wait."""
    graph = GRAPH | {"3": {"class_type": "PackAny", "inputs": {"anything": 1}}}
    answers = [ClaimedJob(JOB, is_next=False), *[None] * 2 * MAX_TRIES]
    steps, reply = drive(rules.submit(asked(body_of(graph))), *answers)
    assert isinstance(steps[-1], ReleaseJob)
    assert (reply.status, reply.body["error"]["code"]) == (429, "queue_full")
    assert dict(reply.headers) == {"Retry-After": "1"}
    assert reply.body["error"]["details"] == {"type": "upstream_busy"}


def test_a_job_is_shown_and_canceled_by_its_id() -> None:
    shown = job_to_client(view(Status.CANCELING), LINKS)
    assert orjson.loads(rules.read(of_job(), view(Status.CANCELING)).body) == shown
    steps, reply = drive(rules.cancel(of_job()), view(Status.CANCELING))
    assert steps == [CancelJob(JOB)]
    assert reply.body == shown


def test_a_job_that_has_ended_is_written_once_for_each_address() -> None:
    ended, running = replace(view(Status.SUCCEEDED), ended_at_s=2000.0), view(Status.RUNNING)
    assert write_job(ended, LINKS) is write_job(ended, LINKS)
    assert write_job(running, LINKS) is not write_job(running, LINKS)
    assert orjson.loads(write_job(replace(ended, outputs=(output(),)), LINKS))["outputs"], "another view"
    for number in range(5):
        links = Links(f"http://host-{number}", "/p")
        assert orjson.loads(write_job(ended, links)) == job_to_client(ended, links)
        assert len(ended.written) <= 2


@pytest.mark.parametrize(
    "rule", [lambda request: rules.read(request, None), lambda request: drive(rules.cancel(request), None)]
)
@pytest.mark.parametrize("job_id", [OTHER, LETTERS.upper(), "", "x", "../jobs"])
def test_what_is_not_ones_own_is_not_there(rule: Any, job_id: str) -> None:
    with pytest.raises(Violation) as absent:
        rule(of_job(job_id))
    assert (absent.value.reason, absent.value.error_type) == (Reason.NOT_FOUND, "job_not_found")
    assert not job_id or job_id not in f"{absent.value.message} {absent.value.details}"


def shown_workflow(jobs: Jobs, disk: Disk, job: JobView | None = None, kept: Any = None) -> Any:
    context = replace(ALICE, jobs=jobs, documents=Kept(kept or {}))
    dialogue = reading(rules.workflow(of_job(context=context)), disk)
    return drive(dialogue, *([] if job is None else [job]))[1].body


@pytest.mark.parametrize("jobs", [Jobs(waiting=[JOB]), Jobs(active=[JOB])])
@pytest.mark.parametrize("is_held", [True, False])
def test_the_workflow_of_a_job_that_has_not_ended(jobs: Jobs, is_held: bool) -> None:
    known = items(JOB, text="mine")
    shown = shown_workflow(jobs, Disk({} if is_held else known), kept=known if is_held else {})
    assert shown == {"workflow": {"1": {"class_type": "A", "inputs": {"text": "mine"}}}, "format": "api"}


@pytest.mark.parametrize("jobs", [Jobs(ended=[JOB]), Jobs(waiting=[JOB])])
def test_the_workflow_of_a_job_that_has_ended(jobs: Jobs) -> None:
    """Also of one that has ended since it was asked for."""
    shown = shown_workflow(jobs, Disk(entries(JOB, text="mine")))
    assert shown == {"workflow": {"1": {"class_type": "A", "inputs": {"text": "mine"}}}, "format": "api"}


def test_the_workflow_of_a_job_that_was_canceled_before_it_began_is_not_kept() -> None:
    for jobs in (Jobs(), Jobs(ended=[JOB])):
        with pytest.raises(Violation, match="not kept") as absent:
            shown_workflow(jobs, Disk({}), view(Status.CANCELED))
        assert absent.value.reason is Reason.NOT_FOUND


def test_a_neighbours_workflow_is_asked_for_nowhere() -> None:
    """SECURITY: an id that is not one's own reaches neither the disk of documents nor what is held of them."""
    context = replace(ALICE, jobs=Jobs(waiting=[OTHER]), documents=Kept(items(JOB, text="canary")))
    disk = Disk(items(JOB, text="canary") | entries(JOB, text="canary"))
    with pytest.raises(Violation) as absent:
        drive(reading(rules.workflow(of_job(context=context)), disk), None)
    assert absent.value.error_type == "job_not_found"
    assert disk.asked == []

"""What is kept of a refusal, and for whom: bounded, paired, without what the client wrote, and each tenant's own."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import ClientReply
from policy.principal import Principal, Role, TenantId
from policy.settings import PolicySettings
from policy.violation import Reason
from policy.workflow import NodeReason
from proxy.config import Config
from proxy.http.errors import Refusal
from proxy.http.request_record import RequestRecord
from proxy.observability.recent_refusals import (
    MAX_RECENT,
    MAX_TENANTS,
    MAX_VIOLATIONS,
    RecentRefusals,
    describe,
    describe_comfyuis,
)
from proxy.observability.refusal_advice import ADVICE, advise, explain_refusal, moment, sentence

ALICE, BOB = (Principal("7f3a9c21", TenantId(name)) for name in ("alice", "bob"))
ADMIN = Principal("0000aaaa", TenantId("alice"), role=Role.ADMIN)
KEY = "cg_7f3a9c21_" + "x" * 43


def node_error(code: str = "value-too-large", received: Any = "80", name: str | None = "steps") -> dict[str, Any]:
    extra = {"received_value": received, "allowed": "at most 50", "input_name": name}
    return {"type": code, "message": "Not permitted.", "details": f"{name}, found {received}", "extra_info": extra}


def refusal(errors: dict[str, list[dict[str, Any]]], class_type: str = "KSampler") -> Refusal:
    entries = {node: {"errors": found, "class_type": class_type} for node, found in errors.items()}
    return Refusal(403, "policy-violation", "See the nodes.", "details", entries)


def test_each_violation_is_whole() -> None:
    record = describe(refusal({"3": [node_error(), node_error("input-linked", "a link", "cfg")]}))
    assert record["by"] == "gate"
    assert [(item["node"], item["class"], item["input"], item["reason"]) for item in record["violations"]] == [
        ("3", "KSampler", "steps", "value-too-large"),
        ("3", "KSampler", "cfg", "input-linked"),
    ]
    assert record["violations"][0]["found"] == "80"


@pytest.mark.parametrize("received", ["'a secret wish'", "'80'", "an object of 3", "true", "nan", "1" * 80])
def test_found_is_a_number_or_nothing(received: str) -> None:
    (violation,) = describe(refusal({"3": [node_error(received=received)]}))["violations"]
    assert "found" not in violation
    assert "wish" not in str(violation)


def test_what_concerns_the_whole_has_no_node() -> None:
    record = describe(Refusal(400, "workflow-malformed", "Correct it.", general=(("ui-format", "Export it."),)))
    assert record["violations"] == [
        {"node": None, "class": None, "input": None, "reason": "ui-format", "message": "Export it."}
    ]
    (plain,) = describe(Refusal(429, "rate-limited", "Too many.", "30/minute"))["violations"]
    assert (plain["reason"], plain["message"]) == ("rate-limited", "Too many.")


def test_a_record_is_bounded_whatever_was_sent() -> None:
    record = describe(refusal({f"{number}" * 100: [node_error()] for number in range(100, 600)}, "K" * 5000))
    assert len(record["violations"]) == MAX_VIOLATIONS
    assert record["more_violations"] == 500 - MAX_VIOLATIONS
    assert len(str(record)) < 10_000


def test_a_name_in_the_form_of_a_key_is_not_kept() -> None:
    record = describe(refusal({KEY: [node_error(name=KEY)]}, KEY))
    assert "x" * 20 not in str(record)


COMFYUIS = {
    "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
    "node_errors": {
        "1": {
            "class_type": "KSampler",
            "errors": [
                {
                    "type": "value_bigger_than_max",
                    "message": "Value 99 bigger than max of 30",
                    "extra_info": {"input_name": "cfg", "received_value": 99, "input_config": ["FLOAT", {"max": 30}]},
                },
                {"type": "value_not_in_list", "message": "Value not in list", "extra_info": {"received_value": "mine"}},
                "nonsense",
            ],
        },
        "2": {"class_type": "B", "errors": None},
        "3": "nonsense",
    },
}


def test_what_comfyui_refused() -> None:
    record = describe_comfyuis(ClientReply(400, COMFYUIS))
    assert (record["by"], record["reason"]) == ("comfyui", "prompt_outputs_failed_validation")
    bigger, listed = record["violations"]
    assert (bigger["input"], bigger["found"], bigger["allowed"]) == ("cfg", "99", "at most 30")
    assert (listed["reason"], "found" in listed, "mine" in str(listed)) == ("value_not_in_list", False, False)


def test_what_comfyui_refused_as_a_whole() -> None:
    error = {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}
    (violation,) = describe_comfyuis(ClientReply(400, {"error": error, "node_errors": []}))["violations"]
    assert (violation["node"], violation["reason"]) == (None, "prompt_no_outputs")


@pytest.mark.parametrize(
    "reply",
    [ClientReply(200, COMFYUIS), ClientReply(500, b"<html>"), ClientReply(400, {"error": "no"}), ClientReply(400, [])],
)
def test_what_is_no_refusal_of_comfyuis(reply: ClientReply) -> None:
    assert describe_comfyuis(reply) == {}


def record(
    who: Principal | None, reason: str = "policy-violation", request_id: str = "a1", **notes: Any
) -> RequestRecord:
    known = {"by": "gate", "violations": [{"reason": reason}], **notes}
    return RequestRecord(
        "POST", request_id, "192.0.2.1", route="POST /prompt", status=403, reason=reason, principal=who, notes=known
    )


def test_each_tenant_sees_its_own() -> None:
    recent = RecentRefusals()
    for who, request_id in ((ALICE, "a1"), (BOB, "b1"), (None, "n1"), (ADMIN, "x1")):
        recent.add(record(who, request_id=request_id))
    assert [entry["request_id"] for entry in recent.of(ALICE)] == ["a1"]
    assert [entry["request_id"] for entry in recent.of(BOB)] == ["b1"]
    assert [entry["request_id"] for entry in recent.of(ADMIN)] == ["x1", "a1"]
    assert recent.of(Principal("c", TenantId("carol"))) == []


def test_what_is_no_decision_is_not_kept() -> None:
    recent = RecentRefusals()
    for reason in ("not-found", "upstream-unavailable", "client-gone"):
        recent.add(record(ALICE, reason))
    recent.add(RequestRecord("GET", "r", "192.0.2.1", principal=ALICE, status=200))
    assert recent.of(ALICE) == []


def test_the_newest_come_first_and_the_oldest_go() -> None:
    recent = RecentRefusals()
    for number in range(MAX_RECENT + 5):
        recent.add(record(ALICE, request_id=f"r{number}", violations=[{"reason": f"{number}"}]))
    shown = [entry["request_id"] for entry in recent.of(ALICE)]
    assert shown == [f"r{number}" for number in range(MAX_RECENT + 4, 4, -1)]


def test_the_same_again_is_counted() -> None:
    recent = RecentRefusals()
    recent.add(record(ALICE))
    for number in range(100):
        recent.add(record(ALICE, "rate-limited", f"r{number}"))
    newest, oldest = recent.of(ALICE)
    assert (newest["count"], newest["request_id"]) == (100, "r99")
    assert oldest["request_id"] == "a1"


def test_tenants_are_bounded() -> None:
    recent = RecentRefusals()
    for number in range(MAX_TENANTS + 1):
        recent.add(record(Principal("s", TenantId(f"t{number}"))))
    assert recent.of(Principal("s", TenantId("t0"))) == []
    assert recent.of(Principal("s", TenantId(f"t{MAX_TENANTS}")))


# The shape of what was sent: there is no setting to change.
MALFORMED = {Reason.NOT_FOUND, Reason.PATH_MALFORMED, Reason.QUERY_MALFORMED, Reason.HEADER_MALFORMED}
MALFORMED |= {Reason.BODY_MALFORMED, Reason.WORKFLOW_MALFORMED, Reason.POLICY_VIOLATION}
MALFORMED |= {Reason.CREDENTIAL_MISPLACED, Reason.PROMPT_ID_TAKEN, Reason.MISSING_ASSET, Reason.HASH_MISMATCH}
MALFORMED |= {Reason.ARGUMENT_REFUSED, Reason.NOT_ACCEPTABLE}
MALFORMED |= {Reason.ASSET_IN_USE, Reason.METADATA_INVALID, Reason.METADATA_FILTER_INVALID, Reason.CURSOR_MALFORMED}


def test_every_reason_that_a_setting_decides_has_advice() -> None:
    from policy.workflow import MALFORMED as MALFORMED_NODES

    links = {NodeReason.LINK_MALFORMED, NodeReason.LINK_NODE_MISSING, NodeReason.LINK_OUTPUT_MISSING}
    assert {reason.value for reason in set(NodeReason) - MALFORMED_NODES - links} <= set(ADVICE)
    assert {reason.value for reason in set(Reason) - MALFORMED} <= set(ADVICE)


def test_advice_names_settings_that_exist() -> None:
    names = {"tenant": "acme", "policy": "strict", "limits": "small"}
    fields = {f"policies.strict.{field}" for field in PolicySettings.model_fields}
    for reason in ADVICE:
        said = advise({"reason": reason, "class": "A", "input": "b"}, "gate", names)
        assert "{" not in said
        for word in said.replace(",", " ").replace(";", " ").split():
            if word.startswith("policies.strict."):
                assert word.rstrip(".") in fields, word


def test_what_no_setting_decides_is_said() -> None:
    assert "has to send something else" in advise({"reason": "link-cycle"}, "gate", {})
    assert "ComfyUI's own rule" in advise({"reason": "value_bigger_than_max"}, "comfyui", {})


def test_a_record_without_violations_is_explained_by_its_reason() -> None:
    entry = {"time": "no time", "request_id": "r", "reason": "client-gone", "status": 499, "tenant": None}
    said = explain_refusal(entry, Config())
    assert "a day that was not recorded" in said
    assert "Somebody whom the gate does not know" in said
    assert "The client closed the connection" in said
    more = explain_refusal(
        {"violations": [{"reason": "ui-format", "message": "Export."}, 5], "more_violations": 3}, Config()
    )
    assert "And 3 more" in more
    assert "Export. (ui-format)" in more


def test_sentences() -> None:
    assert sentence({"reason": "x", "message": "No.", "allowed": "at most 5"}) == "allowed: at most 5. No. (x)"
    assert sentence({"node": "1", "reason": "x"}) == "Node 1. x (x)"
    assert moment("2026-11-21T04:02:20.123+00:00") == "2026-11-21 04:02:20 UTC"

"""Refusals in the API's words: each that the gate has gets a status and a code of the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from policy.v2.errors import MAX_MESSAGE_CHARACTERS, envelope, in_words
from policy.violation import Reason
from proxy.http.errors import _STATUS

CODES = frozenset(
    {
        *("unauthorized", "forbidden", "insufficient_credits", "not_found", "job_not_found", "asset_not_found"),
        *("invalid_workflow", "workflow_format_ui", "missing_asset", "idempotency_key_reuse", "hash_mismatch"),
        *("blob_not_found", "queue_full", "rate_limited", "internal_error", "service_unavailable"),
        *("too_many_streams", "upstream_error", "not_implemented", "asset_in_use", "invalid_request"),
        *("payload_too_large", "output_unavailable", "metadata_invalid", "invalid_metadata_filter", "invalid_cursor"),
        "storage_full",
    }
)
"""Those of the contract that a server of this kind says, and the gate's own word for a full store, which the SDKs read as any error."""
# By which class the SDKs raise: a code goes with one status.
_STATUSES = {
    401: ("unauthorized",),
    402: ("insufficient_credits",),
    403: ("forbidden",),
    404: ("not_found", "job_not_found", "asset_not_found", "blob_not_found"),
    409: ("hash_mismatch", "asset_in_use"),
    413: ("payload_too_large",),
    422: ("invalid_workflow", "workflow_format_ui", "missing_asset", "idempotency_key_reuse", "metadata_invalid"),
    429: ("queue_full", "rate_limited", "too_many_streams"),
    507: ("storage_full",),
}
STATUS_OF = {code: status for status, codes in _STATUSES.items() for code in codes}


def is_of_the_contract(status: int, code: str) -> bool:
    return (
        code in CODES
        and status == STATUS_OF.get(code, status)
        and 400 <= status < 600
        and (code != "upstream_error" or status >= 500)
    )


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_of_a_rule_has_a_status_and_a_code_of_the_contract(reason: Reason) -> None:
    status, code = in_words(reason.value.replace("-", "_"), _STATUS[reason])
    assert is_of_the_contract(status, code), (status, code)


def _reasons_of_the_gate() -> list[str]:
    """Whatever is written as the reason of a refusal."""
    folder = Path(__file__).parents[3] / "proxy"
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
    pattern = re.compile(
        r'Refusal\(\s*\n?\s*(\d{3}),\s*"([a-z0-9-]+)"|reason: str = "([a-z0-9-]+)"|reason="([a-z0-9-]+)"'
    )
    found = {(each[1] or each[2] or each[3], each[0]) for text in texts for each in pattern.findall(text)}
    return sorted(f"{reason} {status}" for reason, status in found)


BY_WORD = {"credential": 401, "session": 401, "token": 401, "rate": 429, "too": 429, "queue": 429, "budget": 429}


@pytest.mark.parametrize("named", _reasons_of_the_gate())
def test_each_other_refusal_has_one_too(named: str) -> None:
    reason, status = named.split(" ")
    told, code = in_words(reason.replace("-", "_"), int(status or BY_WORD.get(reason.split("-")[0], 429)))
    assert is_of_the_contract(told, code), (told, code)


@pytest.mark.parametrize(
    ("gate_type", "status", "expected"),
    [
        ("credential_missing", 401, (401, "unauthorized")),
        ("credential_ended", 401, (401, "unauthorized")),
        ("token_expired", 401, (401, "unauthorized")),
        ("policy_violation", 403, (403, "forbidden")),
        ("scope_missing", 403, (403, "forbidden")),
        ("admins_only", 403, (403, "forbidden")),
        ("origin_foreign", 403, (403, "forbidden")),
        ("file_type_refused", 403, (403, "forbidden")),
        ("workflow_malformed", 400, (422, "invalid_workflow")),
        ("prompt_outputs_failed_validation", 400, (422, "invalid_workflow")),
        ("prompt_no_outputs", 400, (422, "invalid_workflow")),
        ("missing_node_type", 400, (422, "invalid_workflow")),
        ("not_found", 404, (404, "not_found")),
        ("route_unlisted", 404, (404, "not_found")),
        ("job_not_found", 404, (404, "job_not_found")),
        ("body_malformed", 400, (400, "invalid_request")),
        ("query_malformed", 400, (400, "invalid_request")),
        ("name_refused", 400, (422, "invalid_request")),
        ("body_too_large", 413, (413, "payload_too_large")),
        ("queue_full", 429, (429, "queue_full")),
        ("rate_limited", 429, (429, "rate_limited")),
        ("budget_spent", 429, (402, "insufficient_credits")),
        ("storage_full", 507, (507, "storage_full")),
        ("upstream_unavailable", 502, (503, "upstream_error")),
        ("upstream_timeout", 504, (504, "upstream_error")),
        ("gate_stopping", 503, (503, "service_unavailable")),
        ("database_unavailable", 503, (503, "service_unavailable")),
        ("method_not_allowed", 405, (405, "invalid_request")),
        ("idempotency_key_reused", 422, (422, "idempotency_key_reuse")),
        ("internal_error", 500, (500, "internal_error")),
    ],
)
def test_the_gates_words_in_those_of_the_contract(gate_type: str, status: int, expected: tuple[int, str]) -> None:
    assert in_words(gate_type, status) == expected


def test_the_web_uis_own_format_is_told_apart() -> None:
    assert in_words("workflow_malformed", 400, frozenset({"ui-format"})) == (422, "workflow_format_ui")
    assert in_words("workflow_malformed", 400, frozenset({"prompt-empty"})) == (422, "invalid_workflow")
    assert in_words("body_malformed", 400, frozenset({"ui-format"})) == (400, "invalid_request"), "of workflows alone"


@pytest.mark.parametrize("status", [400, 409, 417, 431])
def test_a_word_that_nobody_knows_is_no_code(status: int) -> None:
    """The SDKs read codes, and the gate's own words stand beside them (`envelope`)."""
    assert in_words("teapot", status) == (status, "invalid_request")


def test_what_is_wrong_stands_in_an_object() -> None:
    """The SDKs drop details of any other kind."""
    whole = envelope("c", "m", gate_type="t", request_id="r", details="d", node_errors={"1": {"errors": []}})
    assert whole == {
        "error": {
            "code": "c",
            "message": "m",
            "details": {"type": "t", "request_id": "r", "details": "d", "node_errors": {"1": {"errors": []}}},
        }
    }
    assert envelope("c", "m", gate_type="t") == {"error": {"code": "c", "message": "m", "details": {"type": "t"}}}


@pytest.mark.parametrize("more", [0, 1])
def test_what_the_sdks_cut_off_stands_in_the_details_too(more: int) -> None:
    message = "x" * (MAX_MESSAGE_CHARACTERS + more)
    error: dict[str, Any] = envelope("c", message, gate_type="t")["error"]
    assert error["message"] == message
    assert error["details"] == {"type": "t"} | ({"message": message} if more else {})

"""Bytes under an id: every tenant's ids are its own, on the way in, in a workflow, and in what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import HeadJudged, UpstreamCall
from policy.catalogue import read_catalogue
from policy.own_ids import MADE, made_ids
from policy.routes import Rewrite
from policy.rule_context import RuleContext
from policy.rules.results import graph_to_client, scrub, temp_files
from policy.violation import Reason
from tests.contract.driver import png
from tests.policy.custom_rows import row, table_of
from tests.policy.tenants import (
    CATALOGUE,
    OBJECT_INFO,
    Jobs,
    caller_of,
    is_refused,
    node,
    refusal,
    request_of,
    rewrite_workflow,
)

RANDOM = "0123456789abcdef" * 2
TABLE = table_of(row("/api/etn/image/{id}", "own-id", "GET", "PUT", inputs=["LoadCache.id"]))
WITH_CACHE = read_catalogue(
    OBJECT_INFO | {"LoadCache": node({"id": ["STRING", {}]}, ["IMAGE"], python_module="custom_nodes.pack")}
)


def call(method: str, value: str, context: RuleContext | None = None) -> UpstreamCall:
    match = TABLE.match(method, ("api", "etn", "image", value))
    assert match is not None
    rule = match.route.tenant
    assert isinstance(rule, Rewrite)
    request = request_of(context, method=method, segments=match.segments, parameters=match.parameters)
    made = rule.request(request)
    assert isinstance(made, UpstreamCall)
    return made


def context_of(tenant: str = "alice", **more: Any) -> RuleContext:
    return caller_of(tenant, catalogue=WITH_CACHE, id_inputs={"LoadCache": frozenset({"id"})}, **more)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_an_id_lies_in_the_tenants_namespace(method: str) -> None:
    assert call(method, "cat").target == "/api/etn/image/tenants%2Falice%2Fcat"
    assert call(method, "cat", caller_of("bob")).target == "/api/etn/image/tenants%2Fbob%2Fcat"
    assert call(method, RANDOM).target == f"/api/etn/image/tenants%2Falice%2F{RANDOM}"


def test_an_id_equal_to_another_segment_is_no_trouble() -> None:
    assert call("GET", "image").target == "/api/etn/image/tenants%2Falice%2Fimage"


def test_a_neighbours_id_is_another_one() -> None:
    target = call("GET", "tenants\\alice\\cat", caller_of("bob")).target
    assert target == "/api/etn/image/tenants%2Fbob%2Ftenants%2Falice%2Fcat"
    assert TABLE.match("GET", ("api", "etn", "image", "tenants/alice/cat")) is None


@pytest.mark.parametrize("value", ["..", "../x".replace("/", "\\"), "x" * 129, "a\x00"])
def test_an_id_that_leads_elsewhere_is_refused(value: str) -> None:
    assert is_refused(call, "GET", value, reason=Reason.NAME_REFUSED)
    assert is_refused(call, "PUT", value, reason=Reason.NAME_REFUSED)


def test_what_a_job_of_ones_own_made_is_read_under_its_own_name() -> None:
    mine = caller_of(jobs=Jobs(temp={f"{MADE}/{RANDOM}"}))
    assert call("GET", RANDOM, mine).target == f"/api/etn/image/{RANDOM}"
    assert "tenants" in call("PUT", RANDOM, mine).target, "nobody writes over it"


def test_a_body_is_a_picture_of_a_size_that_is_taken() -> None:
    body = call("PUT", "cat", caller_of(max_picture_pixels=1000)).body
    assert isinstance(body, HeadJudged)
    body.judge(png((1, 2, 3)))
    assert is_refused(body.judge, b"<svg xmlns='http://www.w3.org/2000/svg'/>", reason=Reason.FILE_TYPE_REFUSED)
    assert is_refused(body.judge, b"", reason=Reason.FILE_TYPE_REFUSED)
    large = png((1, 2, 3))[:16] + (1000).to_bytes(4, "big") * 2
    assert is_refused(body.judge, large, reason=Reason.PICTURE_TOO_LARGE)


def test_a_node_reads_the_tenants_own() -> None:
    context = context_of(jobs=Jobs(temp={f"{MADE}/{RANDOM}"}))
    nodes = {
        "1": {"class_type": "LoadCache", "inputs": {"id": "cat"}},
        "2": {"class_type": "LoadCache", "inputs": {"id": RANDOM}},
    }
    rewritten = rewrite_workflow(nodes, context)
    assert [rewritten[each]["inputs"]["id"] for each in "12"] == ["tenants/alice/cat", RANDOM]
    shown = graph_to_client(rewritten, context.names)
    assert [shown[each]["inputs"]["id"] for each in "12"] == ["cat", RANDOM]


def test_an_id_that_is_not_declared_is_the_tenants_own_too() -> None:
    context = caller_of(id_inputs={"PackAny": frozenset({"id"}), "Other": frozenset({"id"})})
    rewritten = rewrite_workflow({"1": {"class_type": "PackAny", "inputs": {"anything": 1, "id": "cat"}}}, context)
    assert rewritten["1"]["inputs"]["id"] == "tenants/alice/cat"


def test_an_id_that_is_not_known_before_the_job_runs_is_refused() -> None:
    nodes = {
        "1": {"class_type": "PackText", "inputs": {"value": "cat"}},
        "2": {"class_type": "LoadCache", "inputs": {"id": ["1", 0]}},
    }
    found = refusal(rewrite_workflow, nodes, context_of())
    assert found.node_errors["2"]["errors"][0]["type"] == "file-input-linked"
    nodes["2"]["inputs"] = {"id": ""}
    assert is_refused(rewrite_workflow, nodes, context_of(), reason=Reason.POLICY_VIOLATION)


def test_what_comfyui_says_of_an_id_is_in_the_clients_words() -> None:
    said = "Image with ID tenants/alice/cat not found in cache."
    assert scrub(said, context_of().names) == "Image with ID cat not found in cache."


def test_the_results_of_a_node_name_what_is_its_tenants() -> None:
    shown = {
        "images": [
            {"source": "http", "id": RANDOM, "type": "output"},
            {"id": "cat"},
            {"id": 7},
            {"id": RANDOM, "filename": "a"},
        ]
    }
    assert temp_files(shown) == [f"{MADE}/{RANDOM}"]
    assert list(made_ids([{"id": "01234567-89ab-cdef-0123-456789abcdef"}])) == [
        f"{MADE}/01234567-89ab-cdef-0123-456789abcdef"
    ]
    assert temp_files({"camera": [{"id": RANDOM}]}) == [], "what is no list of results is the client's own"


def test_the_catalogue_is_the_one_that_other_tests_have() -> None:
    assert CATALOGUE.get("LoadCache") is None

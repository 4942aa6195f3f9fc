"""Refusals in the API's envelope, also those that come before the route is known; and nowhere else than under its two trees."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from policy.principal import Scope
from policy.violation import Reason, Violation
from proxy.auth import key_file
from proxy.http.errors import (
    LimitExceeded,
    MethodNotAllowed,
    Unauthenticated,
    UpstreamTimeout,
    UpstreamUnavailable,
    refusal_for,
)
from proxy.http.request_record import RequestRecord
from proxy.pages.refusals import refuse
from standin import StandIn
from tests.contract.driver import saving, unique
from tests.harness import Running, running_gate
from tests.policy.tenants import uuid_of
from tests.proxy.http.requests import made_request
from tests.proxy.v2.asking import JOBS, ask, job, submit, submitted

ID = uuid_of(7)
ASSETS = "/api/v2/assets"


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/{ID}", f"{ASSETS}/{ID}", f"{JOBS}/x/y/z", f"{JOBS}?limit=0"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer x"}, {"X-API-Key": "cg_00000000_" + "x" * 43}, {"Authorization": "Basic x"}],
)
async def test_who_is_nobody_is_told_so(gate: Running, path: str, headers: dict[str, str]) -> None:
    answer = await ask(gate, "GET", path, None, headers=headers)
    assert answer.refusal == (401, "unauthorized")
    assert "Bearer" in answer.headers["WWW-Authenticate"]


async def test_a_browser_is_told_as_any_client(gate: Running) -> None:
    """It is no page that somebody could log in to."""
    headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await ask(gate, "GET", JOBS, None, headers=headers)).refusal == (401, "unauthorized")


@pytest.mark.parametrize("path", [f"{JOBS}/", f"{JOBS}/{ID}/x", f"{JOBS}/{ID}/events/x", f"{ASSETS}/{ID}/content/x"])
async def test_no_such_path(gate: Running, path: str) -> None:
    answer = await ask(gate, "GET", path)
    assert (answer.status, answer.code) in ((404, "not_found"), (400, "invalid_request"))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", JOBS, {"GET", "POST"}),
        ("PUT", f"{JOBS}/{ID}", {"GET"}),
        ("GET", f"{JOBS}/{ID}/cancel", {"POST"}),
        ("POST", f"{JOBS}/{ID}/workflow", {"GET"}),
    ],
)
async def test_no_such_method(gate: Running, method: str, path: str, allowed: set[str]) -> None:
    answer = await ask(gate, method, path)
    assert answer.refusal == (405, "invalid_request")
    assert allowed <= {name.strip() for name in answer.headers["Allow"].split(",")}


@pytest.mark.parametrize(
    "path",
    [
        f"{JOBS}/%00",
        f"{JOBS}/a%0ab",
        f"{JOBS}/..",
        f"{JOBS}/%2e%2e",
        f"{JOBS}/a%5cb",
        f"{JOBS}?limit=%ff",
        f"{JOBS}/%zz",
    ],
)
async def test_what_cannot_be_read_is_no_mistake_of_the_gates(gate: Running, path: str) -> None:
    answer = await ask(gate, "GET", path)
    assert (answer.status, answer.code) in ((400, "invalid_request"), (404, "not_found"))


async def test_a_large_body(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url, server='max_prompt_bytes = "1KiB"') as gate:
        answer = await submit(gate, saving("x" * 2000))
        assert answer.refusal == (413, "payload_too_large")


async def test_a_large_head(tmp_path: Path, comfy: StandIn) -> None:
    async with running_gate(tmp_path, comfy.url, server='max_header_bytes = "1KiB"') as gate:
        assert (await ask(gate, "GET", JOBS, headers={"X-Pad": "x" * 2000})).refusal == (400, "invalid_request")


async def test_a_gate_that_stops(gate: Running) -> None:
    job_id = await submitted(gate, saving(unique()))
    gate.gate.pipeline.is_closed = True
    for method, path in (("GET", f"{JOBS}/{job_id}"), ("POST", JOBS)):
        answer = await ask(gate, method, path)
        assert answer.refusal == (503, "service_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_an_admin_has_no_jobs_of_the_gates(gate: Running) -> None:
    for method, path in (("GET", JOBS), ("POST", JOBS), ("GET", f"{JOBS}/{ID}"), ("POST", f"{JOBS}/{ID}/cancel")):
        answer = await ask(gate, method, path, "admin", data=b"{}" if method == "POST" else None)
        assert answer.refusal == (403, "forbidden")


async def test_a_key_that_only_reads(gate: Running) -> None:
    job_id = await submitted(gate, saving(unique()))
    made = key_file.create_key(gate.config_file, tenant="alice", scopes=frozenset({Scope.JOBS_READ}))
    assert await gate.gate.reload(gate.config_file)
    headers = {"Authorization": f"Bearer {made.text}"}
    assert (await ask(gate, "GET", f"{JOBS}/{job_id}", None, headers=headers)).status == 200
    for path in (JOBS, f"{JOBS}/{job_id}/cancel"):
        answer = await ask(gate, "POST", path, None, headers=headers, data=b'{"workflow":{}}')
        assert answer.refusal == (403, "forbidden")


@pytest.mark.parametrize(
    "path", ["/api/v2/userdata?path=..%2f..%2fx", "/api/v2x", "/api/v2", "/api/v2/jobsx", "/v2/jobs", "/api/jobsx"]
)
async def test_other_routes_keep_comfyuis_words(gate: Running, path: str) -> None:
    answer = await ask(gate, "GET", path)
    assert answer.status >= 400
    assert {"type", "message"} <= set(answer.body["error"])
    assert "code" not in answer.body["error"]
    assert "X-Comfy-Request-Id" not in answer.headers


async def test_each_answer_names_its_request(gate: Running) -> None:
    job_id = await submitted(gate, saving(unique()))
    for who, method, path in (
        ("alice", "GET", JOBS),
        ("alice", "GET", f"{JOBS}/{job_id}"),
        ("alice", "POST", f"{JOBS}/{job_id}/cancel"),
        ("alice", "GET", f"{JOBS}/{ID}"),
        (None, "GET", JOBS),
        ("alice", "PUT", JOBS),
    ):
        answer = await ask(gate, method, path, who)
        assert answer.headers["X-Comfy-Request-Id"] == answer.headers["X-Request-Id"]
    answer = await ask(gate, "GET", f"{JOBS}/{ID}", headers={"X-Request-Id": "of-the-client-1"})
    assert answer.body["error"]["details"]["request_id"] == answer.headers["X-Comfy-Request-Id"]


async def test_links_lead_where_the_gate_is_seen(tmp_path: Path, comfy: StandIn) -> None:
    server = 'public_url = "https://gate.example"\npublic_path = "/comfy"'
    async with running_gate(tmp_path, comfy.url, server=server) as gate:
        job_id = await submitted(gate, saving(unique()))
        here = f"/comfy{JOBS}/{job_id}"
        urls = (await job(gate, job_id))["urls"]
        assert urls == {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"}


async def test_polls_of_ones_own_jobs_are_not_refused(gate: Running) -> None:
    """An SDK that waits dies of one 429."""
    job_id = await submitted(gate, saving(unique()))
    answers = await asyncio.gather(*(ask(gate, "GET", f"{JOBS}/{job_id}") for _ in range(200)))
    assert {answer.status for answer in answers} == {200}


def told(error: Exception) -> tuple[int, str, dict[str, str]]:
    refusal = refusal_for(error)
    assert refusal is not None
    record = RequestRecord("GET", "an-id", "127.0.0.1", raw_path=JOBS)
    reply = refuse(made_request("GET", JOBS), record, refusal)
    assert isinstance(reply.body, bytes)
    return reply.status, orjson.loads(reply.body)["error"]["code"], dict(reply.headers)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_told_in_the_envelope(reason: Reason) -> None:
    status, code, headers = told(Violation(reason, "No."))
    assert 400 <= status < 600
    assert code
    assert ("Retry-After" in headers) == (status in (429, 503, 504))


@pytest.mark.parametrize(
    ("error", "status", "code", "waits"),
    [
        (LimitExceeded("x", limit="l", retry_after_s=7.0), 429, "rate_limited", "8"),
        (LimitExceeded("x", limit="l", retry_after_s=3.0, reason="queue-full"), 429, "queue_full", "4"),
        (LimitExceeded("x", limit="l", retry_after_s=9000.0, reason="budget-spent"), 402, "insufficient_credits", None),
        (LimitExceeded("x", limit="l", retry_after_s=1.0, reason="too-many-websockets"), 429, "too_many_streams", "2"),
        (UpstreamUnavailable(), 503, "upstream_error", "5"),
        (UpstreamUnavailable(status=503), 503, "upstream_error", "5"),
        (UpstreamTimeout(), 504, "upstream_error", "5"),
        (Unauthenticated(), 401, "unauthorized", None),
        (MethodNotAllowed(("GET",)), 405, "invalid_request", None),
    ],
)
def test_whoever_is_to_wait_is_told_how_long(error: Exception, status: int, code: str, waits: str | None) -> None:
    """In whole seconds: a date counts as nothing with the SDKs, and without it a submission fails at once."""
    found = told(error)
    assert found[:2] == (status, code)
    assert found[2].get("Retry-After") == waits

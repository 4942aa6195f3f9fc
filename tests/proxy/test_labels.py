"""Whatever clients send, the labels of metrics stay the few that table, configuration and fixed words give."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from policy.principal import parse_tenant
from policy.table import ROUTES
from proxy.http.request_record import UNLISTED
from proxy.jobs.registry import Job, Outcome
from proxy.observability.metrics import MAX_NODE_CLASSES, Metrics
from standin import StandIn
from tests.contract.driver import node, saving
from tests.harness import Running, running_gate
from tests.wire.raw import request, send

MARK = "zqmark"
"""In everything that the random client makes up."""
SEED = 20_240_501
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"}
GATE_PAGES = {f"{method} /gate/{page}" for method in METHODS for page in ("health", "me", "login", "logout")}
ALLOWED = {
    "method": METHODS,
    "route": {route.name for route in ROUTES} | GATE_PAGES | {UNLISTED},
    "tenant": {"alice", "mallory", "-"},
    "result": {"good", "bad"},
}
_STATUS = re.compile(r"[1-5]\d\d")
_REASON = re.compile(r"[a-z]+(-[a-z]+)*")


async def labels(gate: Running) -> set[tuple[str, str]]:
    """Each label with each of its values, of the gate's own metrics."""
    async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
        text = await answer.text()
    assert MARK not in text.lower()
    return {
        (name, value)
        for family in text_string_to_metric_families(text)
        if family.name.startswith("comfygate")
        for sample in family.samples
        for name, value in sample.labels.items()
        if name != "le"
    }


def wild_requests(keys: list[str | None], count: int) -> Iterator[bytes]:
    """Methods, paths, queries, header values, class names, client ids and user names that nobody has seen."""
    chance = random.Random(SEED)

    def word() -> str:
        return f"{MARK}{chance.randrange(1 << 48):x}"

    known = [route.path for route in ROUTES]
    for _ in range(count):
        method = chance.choice([word().upper(), "GET", "POST", "PUT", "DELETE", "PROPFIND", "OPTIONS"])
        path = chance.choice([f"/{word()}", f"/{word()}/{word()}", f"/gate/{word()}", chance.choice(known), "/prompt"])
        target = re.sub(r"\{[^}]*\}", lambda _: word(), path) + chance.choice(["", f"?{word()}={word()}"])
        headers = [
            f"X-Request-Id: {word()}",
            f"Cf-Ray: {word()}",
            f"CF-Connecting-IP: {word()}",
            f"User-Agent: {word()}",
            f"Comfy-User: {word()}",
            f"{word()}: {word()}",
        ]
        graph = {word(): node(word(), **{word(): word()})}
        body = orjson.dumps({"prompt": graph, "client_id": word(), word(): word()}) if method == "POST" else b""
        if body:
            headers += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        key = chance.choice([*keys, f"cg_{word()}"])
        yield request(target, key, *headers, method=method, body=body)


@pytest.mark.parametrize("who", ["alice", "admin"])
async def test_random_requests_make_no_new_labels(tmp_path: Path, comfy: StandIn, who: str) -> None:
    more = '[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"'
    async with running_gate(tmp_path, comfy.url, more=more) as gate:
        statuses = []
        for data in wild_requests([None, gate.keys[who]], 400):
            statuses.append((await send(gate.url, data)).status)
        assert await gate.status("POST", "/prompt", who, json={"prompt": saving("labels")}) == 200
        found = await labels(gate)
    assert {400, 401, 404, 405} <= set(statuses), "the requests went many ways"
    for name, value in sorted(found):
        if name == "status":
            assert _STATUS.fullmatch(value)
        elif name == "reason":
            assert _REASON.fullmatch(value)
        elif name in ALLOWED:
            assert value in ALLOWED[name], name
        else:
            assert name in {"state", "outcome", "key", "node_class", "sink"}


async def test_more_of_the_same_makes_no_more_series(tmp_path: Path, comfy: StandIn) -> None:
    """Another seed of unlisted paths, methods and keys: not one series more."""

    async def series(gate: Running) -> int:
        async with gate.session.get(f"{gate.ops_url}/metrics") as answer:
            return sum(not line.startswith("#") for line in (await answer.text()).splitlines())

    async def flood(gate: Running, begin: int) -> None:
        for number in range(begin, begin + 50):
            await asyncio.gather(
                gate.status(f"{MARK}{number}".upper(), f"/{MARK}{number}", None),
                gate.status("GET", f"/{MARK}{number}", "alice"),
                gate.status("GET", f"/userdata/{MARK}{number}", "alice"),
                gate.status("GET", f"/gate/{MARK}{number}", "alice"),
                gate.status("GET", "/queue", None, headers={"X-API-Key": f"cg_{number:08x}_{'A' * 43}"}),
            )

    more = '[limits.logins]\nfailures = "100000/minute"\ndelay = "0s"'
    async with running_gate(tmp_path, comfy.url, more=more) as gate:
        await flood(gate, 0)
        before = await series(gate)
        await flood(gate, 1000)
        assert await series(gate) == before


def test_classes_that_fail_are_bounded() -> None:
    """Their names come from ComfyUI, which may have any number of custom nodes."""
    metrics, count = Metrics(), 5 * MAX_NODE_CLASSES
    for number in range(count):
        name = f"Class{number}"
        metrics.job_ended(Job("p", parse_tenant("alice"), outcome=Outcome.FAILED, failing_class=name))
    series = {
        sample.labels["node_class"]: sample.value
        for family in metrics.registry.collect()
        if family.name == "comfygate_jobs_failed"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert len(series) == MAX_NODE_CLASSES + 1
    assert series["other"] == count - MAX_NODE_CLASSES

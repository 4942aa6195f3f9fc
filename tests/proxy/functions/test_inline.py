"""Files within the answer (`?inline=BYTES`): small ones, few of them, and only for who may read files."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from policy.principal import Scope
from proxy.auth import key_file
from tests.contract.conftest import REAL_URL
from tests.harness import running_gate
from tests.proxy.functions.calls import TENANTS, Caller, calling, write_functions
from tests.proxy.functions.conftest import KINDS
from tests.proxy.functions.test_converted import FUNCTIONS, POLICIES
from tests.proxy.v2.assets.sdk import Standing

MAX = 1024**2
WAITING = {"Prefer": "wait=60"}


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    tenants = TENANTS.replace('["paint"]', '["*"]')
    if request.param == "real":
        write_functions(tmp_path, FUNCTIONS)
        async with running_gate(tmp_path, REAL_URL, tenants=tenants, more=POLICIES) as gate:
            yield Standing(gate, None, None)
    else:
        is_seen = request.param == "seen"
        async with calling(tmp_path, is_seen=is_seen, functions=FUNCTIONS, tenants=tenants, more=POLICIES) as found:
            yield found


def inlined(job: Any) -> dict[str, bytes | None]:
    found = {each["output"] or each["node_id"]: each["data"] for each in job["outputs"]}
    return {name: None if data is None else base64.b64decode(data, validate=True) for name, data in found.items()}


async def test_a_call_that_waits_gets_the_files_with_its_job(world: Standing) -> None:
    alice = Caller(world.gate)
    answer = await alice.run("both", {}, f"?inline={MAX}", **WAITING)
    assert answer.status == 200, answer.raw
    data = inlined(answer.body)
    assert sorted(data) == ["full", "picture", "small"]
    for name, each in data.items():
        assert each == (await alice.ask("GET", f"/gate/jobs/{answer.body['id']}/outputs/{name}")).raw
    # So does who asks for the job later.
    later = await alice.ask("GET", f"/gate/jobs/{answer.body['id']}?inline={MAX}")
    assert inlined(later.body) == data
    assert later.headers["Content-Type"].startswith("application/json")


async def test_what_is_larger_is_told_by_its_address_alone(world: Standing) -> None:
    alice = Caller(world.gate)
    answer = await alice.run("both", {}, "?inline=1", **WAITING)
    assert inlined(answer.body) == {"full": None, "picture": None, "small": None}
    sizes = {each["output"]: each["size_bytes"] for each in answer.body["outputs"]}
    smallest = min(sizes, key=lambda name: sizes[name])
    some = await alice.ask("GET", f"/gate/jobs/{answer.body['id']}?inline={sizes[smallest]}")
    assert [name for name, data in inlined(some.body).items() if data is not None] == [smallest]
    plain = await alice.job(answer.body["id"])
    assert all("data" not in each for each in plain["outputs"])


async def test_a_text_is_inlined_too(world: Standing) -> None:
    alice = Caller(world.gate)
    talk = Path(world.gate.config_file).parent / "functions" / "talk.toml"
    talk.write_text(talk.read_text().replace('convert = "png"\n', ""))
    assert await world.gate.gate.reload(world.gate.config_file)
    answer = await alice.run("talk", {"words": "hello"}, "?inline=100", **WAITING)
    assert inlined(answer.body) == {"said": b"hello"}


async def test_what_is_asked_wrong_runs_nothing(world: Standing) -> None:
    alice = Caller(world.gate)
    for text in ("x", str(MAX + 1), ""):
        assert (await alice.run("both", {}, f"?inline={text}")).refusal == (400, "query_malformed")
    scopes = frozenset({Scope.JOBS_SUBMIT, Scope.JOBS_READ})
    narrow = key_file.create_key(world.gate.config_file, tenant="alice", scopes=scopes)
    assert await world.gate.gate.reload(world.gate.config_file)
    before = len((await alice.ask("GET", "/api/v2/jobs")).body["jobs"])
    refused = await alice.run("both", {}, "?inline=5", Authorization=f"Bearer {narrow.text}")
    assert refused.refusal == (403, "scope_missing")
    assert len((await alice.ask("GET", "/api/v2/jobs")).body["jobs"]) == before


async def test_its_room_is_that_of_large_bodies_and_is_given_back(world: Standing) -> None:
    """SECURITY: answers with files in them would fill the gate's memory."""
    alice, bodies = Caller(world.gate), world.gate.gate.dependencies.bodies
    held: list[int] = []
    hold = bodies.take

    async def take(tenant: Any, more: int, wait_s: float) -> None:
        await hold(tenant, more, wait_s)
        held.append(more)

    with pytest.MonkeyPatch.context() as patched:
        answer = await alice.run("both", {}, **WAITING)
        patched.setattr(bodies, "take", take)
        await alice.ask("GET", f"/gate/jobs/{answer.body['id']}?inline={MAX}")
    assert held == [3 * sum(each["size_bytes"] for each in answer.body["outputs"])]
    assert bodies.held_bytes == 0

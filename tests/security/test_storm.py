"""The storm of `make storm`, for a moment: shapes and refusals, no times. What it does to a neighbour's times is measured there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench import loops, storm
from policy.principal import TenantId
from proxy.http.body_memory import MAX_TENANT_BYTES
from standin import StandIn
from tests.harness import running_gate
from tests.policy.test_pictures import picture

MOMENT_S = 2.0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_neighbour_is_refused_nothing_while_one_tenant_does_all_that_it_may(
    tmp_path: Path, comfy: StandIn
) -> None:
    base = tmp_path / "comfyui"
    large = base / "input" / "tenants" / "mallory" / "large.png"
    large.parent.mkdir(parents=True, exist_ok=True)
    large.write_bytes(picture("PNG", 1000, 1000))
    limits = "\n[limits.wild]\nqueued_jobs = 10\n"
    async with running_gate(tmp_path, comfy.url, upstream_more=f'directory = "{base}"', more=limits) as gate:
        text = gate.config_file.read_text(encoding="utf-8")
        gate.config_file.write_text(
            text.replace("[tenants.mallory]", '[tenants.mallory]\nlimits = "wild"'), encoding="utf-8"
        )
        assert await gate.gate.reload(gate.config_file)
        async with (
            storm.tenant(gate.url, gate.keys["alice"]) as calm,
            storm.tenant(gate.url, gate.keys["mallory"]) as wild,
        ):
            await asyncio.gather(storm.calm(calm, MOMENT_S), storm.storm(wild, MOMENT_S))
        dependencies = gate.gate.dependencies
        assert (set(calm.seen.statuses), dict(calm.seen.failures)) == ({200}, {})
        assert set(calm.seen.times) == {"GET /queue", "POST /prompt", "socket"}
        assert set(wild.seen.statuses) <= {200, 400, 408, 413, 429}
        assert not [kind for kind in wild.seen.failures if kind.startswith("storm")]
        assert dependencies.kept.held_bytes <= 8 * 1024**2
        assert dependencies.bodies.held_bytes <= MAX_TENANT_BYTES + 8 * 1024**2
        assert dependencies.under_way.running(TenantId("mallory")) <= 64


def seen(*times_s: float) -> storm.Seen:
    return storm.Seen(times={"GET /queue": list(times_s)})


def test_a_neighbour_is_judged_by_quiet_and_by_what_the_machine_took() -> None:
    quiet = seen(0.001, 0.001, 0.001)
    assert storm.broken_times(quiet, seen(0.005), quiet, 0.0) == []
    assert len(storm.broken_times(quiet, seen(0.006), quiet, 0.0)) == 1
    assert storm.broken_times(quiet, seen(0.006), quiet, 2.0) == []
    assert storm.broken_times(quiet, seen(0.006), seen(0.007), 0.0) == []


def test_a_loop_is_judged_by_its_own_lateness_and_its_longest_step() -> None:
    good = {
        "seconds": 1.0,
        "lag_p99_s": 0.3,
        "lag_longest_s": 0.5,
        "own_lag_p99_s": 0.001,
        "own_lag_longest_s": 0.002,
        "loop_cpu_s": 0.1,
        "threads_cpu_s": 0.1,
        "kinds": {"GET /queue": [10, 0.1, 0.4, 0.001]},
    }
    assert loops.tell("the gate", good, promises=True) == []
    assert round(loops.machine_s(good), 3) == 0.299
    for worse in ({"own_lag_p99_s": 0.011}, {"own_lag_longest_s": 0.051}, {"kinds": {"x": [1, 0.1, 0.1, 0.031]}}):
        assert len(loops.tell("the gate", good | worse, promises=True)) == 1
        assert loops.tell("the stand-in", good | worse, promises=False) == []

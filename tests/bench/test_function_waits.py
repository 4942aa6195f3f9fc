"""What a client costs that waits for the end of a job: its own request's task, and nothing that the call was read from. Never in time."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

from policy.principal import TenantId
from policy.rule_context import RuleInput
from tests.proxy.functions.calls import Caller, calling
from tests.proxy.upstreams import GUARD_S

WAITS = 40
ALICE = TenantId("alice")


async def test_who_waits_holds_nothing_of_its_call(tmp_path: Path) -> None:
    gc.collect()
    of_others = {id(each) for each in gc.get_objects() if type(each) is RuleInput}
    async with calling(tmp_path, more="\n[limits.many]\nwebsockets = 100\n") as world:
        alice, gate = Caller(world.gate), world.gate.gate
        job = (await alice.run("slow", {"seconds": 3600.0, "color": 1}, Idempotency_Key="k")).body
        sockets, threads = len(gate.dependencies.sockets), threading.active_count()
        waits = [
            asyncio.create_task(
                alice.run("slow", {"seconds": 3600.0, "color": 1}, Idempotency_Key="k", Prefer="wait=90")
            )
            for _ in range(WAITS)
        ]
        async with asyncio.timeout(GUARD_S):
            while len(gate.dependencies.sockets) < sockets + WAITS:
                done = [each for each in waits if each.done()]
                for each in done:  # the first ones were still being answered: 409
                    waits.remove(each)
                    waits.append(
                        asyncio.create_task(
                            alice.run("slow", {"seconds": 3600.0, "color": 1}, Idempotency_Key="k", Prefer="wait=90")
                        )
                    )
                await asyncio.sleep(0.02)
        assert threading.active_count() <= threads + 1
        assert gate.dependencies.under_way.running(ALICE) == 0, "others of its tenant may ask"
        gc.collect()
        kept = [each for each in gc.get_objects() if type(each) is RuleInput and id(each) not in of_others]
        assert kept == [], "neither the body nor what was known when it came"
        await alice.ask("POST", job["urls"]["cancel"])
        answers = await asyncio.gather(*waits)
        assert {(each.status, each.body["status"]) for each in answers} == {(200, "canceled")}
        assert len(gate.dependencies.sockets) == sockets

"""The rows of surface.py through the gate; what comes of them is a table of docs/compatibility.md."""

from __future__ import annotations

from tests.clients.runs import upstream_of
from tests.v2.bodies import Judges
from tests.v2.report import record
from tests.v2.surface import outcomes
from tests.v2.world import World

GATE = "comfygate"


async def test_every_row_works_with_the_gate(world: World, kind: str, judges: Judges) -> None:
    found = await outcomes(await world.sdk(kind), world.recorder, judges)
    record(GATE, await upstream_of(world.gate), kind, found)
    assert {name: outcome for name, outcome in found.items() if outcome != "works"} == {}

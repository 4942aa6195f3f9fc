"""The same workflows, sent to ComfyUI past the gate and through it as a tenant who may run everything: the same comes back.

What differs on purpose, and is not drawn: a text, list or object where only a node makes what the input wants (refused, since some nodes
open it as a path); links to outputs that are below 0 or a truth value; names of files, which are the tenant's own, and are no links to what is
not known before; a workflow whose every output is spoiled by a link to nowhere names that link alone, since ComfyUI is not asked.

COMFYUI_URL: a real ComfyUI besides the stand-in. DIFFERENTIAL_COUNT, DIFFERENTIAL_SEED: how many, from where (150 and 1).
"""

from __future__ import annotations

import collections
import os
from pathlib import Path

import pytest

from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import unique
from tests.differential.compare import Seen, run
from tests.differential.generate import Generator, Workflow
from tests.matrix.world import World, open_world

COUNT = int(os.environ.get("DIFFERENTIAL_COUNT", "150"))
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))


async def permit_everything(world: World) -> None:
    file = world.running.config_file
    lines = [
        f"allow = {'[' + chr(34) + '*' + chr(34) + ']'}" if line.startswith("allow = ") else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines) + "\n")
    assert await world.running.gate.reload(file)


@pytest.mark.timeout(60 + COUNT * 3)
@pytest.mark.parametrize("target", TARGETS)
async def test_the_gate_changes_nothing(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenant's results are others than those past the gate: the oldest are not to go between the two. A real one keeps them as long as there is memory.
    monkeypatch.setattr("standin.execution.MAX_CACHED", 100 * COUNT)
    async with open_world(tmp_path, real_url=REAL_URL if target == "real" else "") as world:
        await permit_everything(world)
        draw = Generator((await world.direct.get("/object_info")).json(), SEED, unique("d"))
        kinds: collections.Counter[str] = collections.Counter()
        differences: list[tuple[int, Workflow, Seen, Seen]] = []
        async with world.direct.socket(unique("sid")) as past, world.alice.socket(unique("sid")) as through:
            for number in range(COUNT):
                workflow = draw.workflow()
                direct = await run(world.direct, past, workflow)
                gate = await run(world.alice, through, workflow)
                kinds[f"{workflow.kind}: {direct.status} {direct.error or direct.state}"] += 1
                if direct != gate and direct.status != 500:
                    differences.append((number, workflow, direct, gate))
        print(*(f"{count:5} {kind}" for kind, count in sorted(kinds.items())), sep="\n")
        for number, workflow, direct, gate in differences[:20]:
            print(f"{number}: {workflow}", direct, gate, sep="\n    ")
        assert not differences, f"{len(differences)} of {COUNT} differ"
        assert {kind.partition(":")[0] for kind in kinds} >= {"good", "a_wrong_literal", "an_undeclared_input"}

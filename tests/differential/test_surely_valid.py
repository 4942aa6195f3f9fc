"""What policy/surely_valid.py takes for certain, ComfyUI accepts without a word; and that is most of what is good.

COMFYUI_URL, DIFFERENTIAL_COUNT, DIFFERENTIAL_SEED: as in test_differential.py.
"""

from __future__ import annotations

import collections
import os
from typing import Any

import aiohttp
import pytest

from policy.catalogue import read_catalogue
from policy.compiled_policy import ADMIN_POLICY
from policy.judge import JudgedPrompt, judge_document
from policy.surely_valid import is_surely_valid
from policy.violation import Violation
from standin import StandIn
from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import Comfy, unique
from tests.differential.generate import Generator, Workflow

COUNT = int(os.environ.get("DIFFERENTIAL_COUNT", "1000"))
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))
BEHIND_ALL = 1e9


def judged_of(workflow: Workflow, catalogue: Any) -> JudgedPrompt | None:
    try:
        return judge_document({"prompt": workflow.prompt, **workflow.fields}, ADMIN_POLICY, catalogue)
    except Violation:
        return None


async def ask(comfy: Comfy, judged: JudgedPrompt) -> dict[str, Any]:
    """ComfyUI's answer. What it accepted is taken back before it can run: `comfy` is busy."""
    targets = judged.partial_execution_targets
    fields = {} if targets is None else {"partial_execution_targets": list(targets)}
    answer = await comfy.submit(judged.nodes, number=BEHIND_ALL, **fields)
    document: dict[str, Any] = answer.json()
    if answer.status == 200:
        await comfy.post("/queue", json={"delete": [document["prompt_id"]]})
    return document


async def compare(comfy: Comfy) -> None:
    info = (await comfy.get("/object_info")).json()
    draw, catalogue = Generator(info, SEED, unique("d")), read_catalogue(info)
    kinds: collections.Counter[tuple[str, bool]] = collections.Counter()
    async with comfy.blocked():
        for number in range(COUNT):
            workflow = draw.workflow()
            judged = judged_of(workflow, catalogue)
            if judged is None:
                continue
            plans, chosen = judged.plans, judged.partial_execution_targets
            outputs = [each for each, plan in plans.items() if plan.is_output and (chosen is None or each in chosen)]
            is_sure = is_surely_valid(judged.nodes, judged.plans, outputs, judged.unproven)
            kinds[workflow.kind, is_sure] += 1
            if is_sure:
                document = await ask(comfy, judged)
                assert "error" not in document, (number, judged.nodes, document)
                assert not document["node_errors"], (number, judged.nodes, document)
    print(*sorted(kinds.items()), sep="\n")
    assert kinds["good", True]
    assert not kinds["good", False]
    assert kinds["a_wrong_literal", False]
    assert kinds["a_missing_input", False]


@pytest.mark.timeout(60 + COUNT)
@pytest.mark.parametrize("target", TARGETS)
async def test_what_is_certain_is_accepted(target: str, tmp_path: Any) -> None:
    standin = StandIn(tmp_path / "comfyui", frontend=False)
    await standin.start()
    try:
        async with aiohttp.ClientSession() as session:
            await compare(Comfy(REAL_URL if target == "real" else standin.url, session, (0, 33, 0), target == "real"))
    finally:
        await standin.stop()

"""Drives the rules of functions, with answers and failures."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from policy.call import Work
from policy.functions.fetches import FetchFailed
from policy.functions.function import CallableFunction
from policy.judge import Policy
from policy.name_patterns import compile_patterns
from policy.principal import Principal, Role, Scope, TenantId
from policy.rule_context import RuleContext, RuleInput
from policy.rules.function_files import NotStored
from policy.v2.asset_uploads import AssetUpload
from policy.v2.assets import AssetDetails
from policy.v2.effects import (
    Received,
)
from policy.violation import Violation
from tests.policy.functions.examples import function
from tests.policy.tenants import EVERYTHING, caller_of, reply_of, request_of, uuid_of
from tests.policy.v2.examples import HASH, LINKS, upload

MINTED = uuid_of(7)
ASSET_ID = str(uuid.uuid5(uuid.UUID(MINTED), "picture"))
GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "own.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
PARAMETERS: dict[str, Any] = {
    "picture": {"type": "image", "fills": ["1.image"]},
    "prefix": {"type": "text", "fills": ["2.filename_prefix"], "default": "x"},
}
SEEDED = function(
    "dice",
    {"1": {"class_type": "Dice", "inputs": {"seed": 1}}},
    parameters={"seed": {"type": "seed", "fills": ["1.seed"], "max": 6, "min": 1}},
    outputs={},
)
WEAR = function(graph=GRAPH, parameters=PARAMETERS)
CALLABLE: Mapping[str, CallableFunction] = {
    "wear": CallableFunction(WEAR, EVERYTHING),
    "dice": CallableFunction(SEEDED, EVERYTHING),
}
ALICE = caller_of("alice", links=LINKS, functions=CALLABLE, takes_workflows=False)
ASSET = upload()
NOTHING = Policy("nothing", allow=compile_patterns([]), deny=compile_patterns([]), max_nodes=1, max_depth=1)
STORED = reply_of({"name": "a.png", "subfolder": f"tenants/alice/api-v2/{ASSET_ID}", "type": "input"})
RECEIVED = Received(HASH, 3, AssetUpload(AssetDetails("a.png"), "a.png"))
NEW = replace(ASSET, asset_id=ASSET_ID)
URL = "data:image/png;base64," + base64.b64encode(b"abc").decode()


def run(steps: Any, *answers: Any, asked: list[Any] | None = None) -> tuple[list[Any], Any]:
    """With these answers, of which an exception is raised inside; all that it asks for, and what it returns."""
    asked = [] if asked is None else asked
    waiting = list(answers)
    try:
        step = next(steps)
        while True:
            try:
                answer = step.function() if isinstance(step, Work) else _answer(asked, step, waiting)
            except (Violation, RuntimeError, FetchFailed) as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        assert not waiting, waiting
        return asked, end.value


def _answer(asked: list[Any], step: Any, waiting: list[Any]) -> Any:
    asked.append(step)
    answer = waiting.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def refused(steps: Any, *answers: Any) -> tuple[list[Any], Any]:
    """All that it asks for, and what it raises."""
    asked: list[Any] = []
    with pytest.raises((Violation, NotStored, RuntimeError)) as error:
        run(steps, *answers, asked=asked)
    return asked, error.value


def called(raw: bytes = b"", name: str = "wear", context: RuleContext = ALICE, **more: Any) -> RuleInput:
    asked = request_of(context, method="POST", parameters={"name": name}, raw=raw)
    return replace(asked, minted_id=MINTED, **more)


def form(**more: Any) -> RuleInput:
    return called(is_form=True, **more)


def limited(*scopes: Scope) -> RuleContext:
    return replace(ALICE, principal=Principal("key", TenantId("alice"), Role.USER, frozenset(scopes)))

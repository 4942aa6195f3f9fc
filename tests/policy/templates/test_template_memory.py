"""What is kept of workflows is bounded, and holds nothing that is in force no more."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from weakref import ref

from policy.templates.template import MAX_BYTES, MAX_WISHES, key_of
from tests.policy.functions.calling import ALICE, OPEN, both, context_of, fills, function_of, known, policy_of, text
from tests.policy.templates.test_template_bounds import TEXT


def test_as_much_is_kept_as_there_is_room_for() -> None:
    graph = {**TEXT, "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "x" * 20_000, "clip": ["2", 1]}}}
    function = function_of(graph, {"words": text("1.text")})
    contexts = [context_of(f"tenant-{number}") for number in range(MAX_BYTES // 40_000 + 1)]
    for context in contexts:
        known(function, OPEN, {"words": "a"}, context=context)
    found = [
        function.workflow.templates.find(key_of(each.names.tenant, OPEN, {"words": "a"}), each)[0] for each in contexts
    ]
    assert not found[0], "it began anew"
    assert found[-1]


def test_long_values_that_cost_are_not_kept() -> None:
    function = function_of(TEXT, {"model": text("2.ckpt_name")})
    template = known(function, OPEN, {"model": "a.safetensors"})
    tracemalloc.start()
    for number in range(MAX_WISHES - 1):
        both(function, OPEN, {"model": f"{'x' * 60_000}{number}"})
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fills(template, {"model": f"{'x' * 60_000}0"})
    assert not fills(template, {"model": f"{'x' * 60_000}y"})
    assert held_bytes < 60_000


def test_what_is_replaced_is_let_go() -> None:
    """A configuration, when another one is read, and what ComfyUI has said of its classes."""
    function = function_of(TEXT, {"words": text("1.text")})
    policy, context = policy_of(), replace(ALICE, catalogue=replace(ALICE.catalogue))
    known(function, policy, {"words": "a"}, context=context)
    held = ref(policy), ref(context.catalogue)
    del policy, context
    gc.collect()
    assert [each() for each in held] == [None, None]
    both(function, OPEN, {"words": "a"})

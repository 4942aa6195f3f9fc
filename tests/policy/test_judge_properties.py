"""Judging is total, and what it lets through was judged."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from policy.judge import JudgedPrompt, Policy, judge
from policy.violation import Violation
from tests.policy.graphs import (
    ALL_BUT_SECRET,
    CATALOGUE,
    OBJECT_INFO,
    SPELLINGS,
    make_policy,
    make_prompt,
    node,
    with_input,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["euler", "by size", "by factor", "a.png"])
    | st.tuples(st.sampled_from(["1", "2", "3", "9"]), st.integers(-1, 3)).map(list),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["__value__", "__type__", "a"]), inner, max_size=2)
    ),
    max_leaves=5,
)
INPUT_NAMES = sorted(
    {name for entry in OBJECT_INFO.values() for section in entry["input"].values() for name in section}
    | {"resize_type.width", "images.image0", "images.image9", "zzz"}
)
DECLARED = {
    name: {key for section in entry["input"].values() for key in section} for name, entry in OBJECT_INFO.items()
}
CLASSES = st.sampled_from([*OBJECT_INFO, "Ghost", *SPELLINGS]) | st.text(max_size=4)
NODES = st.fixed_dictionaries(
    {"class_type": CLASSES, "inputs": st.dictionaries(st.sampled_from(INPUT_NAMES), VALUES, max_size=6)},
    optional={"_meta": VALUES, "is_changed": VALUES},
)
GRAPHS = st.dictionaries(st.sampled_from(["1", "2", "3", "4:5", "9"]), NODES | VALUES, max_size=4)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["client_id", "prompt_id", "extra_data", "number", "front", "priority", "partial_execution_targets"]
    ),
    VALUES,
    max_size=3,
)
STRICT = make_policy(
    inputs={
        "*.steps": {"min": 1, "max": 50},
        "*.width": {"max": 2048, "multiple_of": 8},
        "LoadImage.image": {"allow": ["a*"]},
        "*.text": {"deny": ["*b*"], "max_length": 4},
    },
    budgets={"px": {"of": "width*height?*batch_size?", "max": 4096}},
)


def judge_or_none(body: bytes, policy: Policy) -> JudgedPrompt | None:
    try:
        return judge(body, policy, CATALOGUE)
    except Violation:
        return None


@given(st.binary(max_size=200))
def test_judging_bytes_is_total(body: bytes) -> None:
    assert judge_or_none(body, STRICT) is None


@given(VALUES | st.fixed_dictionaries({"prompt": VALUES}))
def test_judging_values_is_total(value: Any) -> None:
    judge_or_none(orjson.dumps(value), STRICT)


@given(GRAPHS, FIELDS)
def test_everything_that_passes_was_judged(graph: dict[str, Any], fields: dict[str, Any]) -> None:
    judged = judge_or_none(orjson.dumps({"prompt": graph} | fields), STRICT)
    if judged is None:
        return
    for node_id, found in judged.nodes.items():
        assert found["class_type"] in ALL_BUT_SECRET
        assert found["class_type"] == graph[node_id]["class_type"]
        assert set(found) <= {"class_type", "inputs", "_meta"}
        for name, value in found["inputs"].items():
            if (
                isinstance(value, list)
                and len(value) == 2
                and isinstance(value[0], str)
                and isinstance(value[1], int | float)
            ):
                target, index = value
                assert type(index) is int
                assert 0 <= index < len(OBJECT_INFO[judged.nodes[target]["class_type"]]["output"])
            elif isinstance(value, dict) and "__value__" in value and name != "zzz":
                assert isinstance(value["__value__"], list) or name not in DECLARED[found["class_type"]]
        steps = found["inputs"].get("steps")
        if found["class_type"] == "KSampler" and steps is not None and not isinstance(steps, list):
            assert 1 <= steps <= 50
    assert judged.client_id is None or isinstance(judged.client_id, str)
    again = judge(orjson.dumps({"prompt": judged.nodes, "extra_data": judged.extra_data}), STRICT, CATALOGUE)
    assert again.nodes == judged.nodes
    assert again.workflow_hash == judged.workflow_hash


@given(st.sampled_from(sorted(make_prompt())), st.sampled_from(INPUT_NAMES), VALUES, st.sampled_from(ALL_BUT_SECRET))
def test_one_change_does_not_carry_the_rest(node_id: str, name: str, value: Any, class_type: str) -> None:
    """Most of the graph is right here, so that more of them pass."""
    prompt = with_input(node_id, name, value) | {"20": node(class_type, **{name: value})}
    judged = judge_or_none(orjson.dumps({"prompt": prompt}), STRICT)
    if judged is not None:
        kept = {key: found["class_type"] for key, found in judged.nodes.items()}
        assert kept.items() <= {key: found["class_type"] for key, found in prompt.items()}.items()
        assert (kept.keys() == prompt.keys()) is (not judged.notices)
        for key, found in judged.nodes.items():
            assert found["inputs"].keys() == prompt[key]["inputs"].keys()
            for name_kept, value_kept in found["inputs"].items():
                given_value = prompt[key]["inputs"][name_kept]
                wrapped = given_value.get("__value__") if isinstance(given_value, dict) else None
                assert value_kept in (given_value, wrapped, {"__value__": wrapped})

"""A call of a function asks for the same as its workflow does that was judged as a whole, whatever is kept of the calls before it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policy.functions.function import Function
from policy.keyform import presented
from policy.salt import SALT
from tests.policy.functions.calling import (
    ASSET,
    NO_IDS,
    call,
    context_of,
    function_of,
    policy_of,
    send,
)
from tests.policy.graphs import with_input
from tests.policy.tenants import Jobs

SECRET = "a-secret-of-some-length"
KEY = f"cg_0123456789ab_{'k' * 43}"


def _text_to_image() -> dict[str, Any]:
    """Whose sampler has one text for both."""
    made = with_input("3", "negative", ["6", 0])
    made["4"]["inputs"]["ckpt_name"] = "a.safetensors"
    del made["7"]
    return made


GRAPH: dict[str, Any] = _text_to_image() | {
    "20": {"class_type": "LoadImage", "inputs": {"image": "own.png", "upload": "image"}},
    "21": {"class_type": "SaveImage", "inputs": {"images": ["20", 0], "filename_prefix": "%date:yyyy%/b"}},
    "30": {"class_type": "PrimitiveString", "inputs": {"value": "sub"}},
    "31": {"class_type": "StringConcatenate", "inputs": {"string_a": ["30", 0], "string_b": "x", "delimiter": "/"}},
    "32": {
        "class_type": "PackSave",
        "inputs": {"images": ["20", 0], "output_path": ["31", 0], "filename_prefix": "p", "caption": "hello"},
    },
    "40": {"class_type": "PrimitiveInt", "inputs": {"value": 512}},
    "41": {"class_type": "EmptyLatentImage", "inputs": {"width": ["40", 0], "height": 64, "batch_size": 1}},
    "50": {"class_type": "Batch", "inputs": {"mode": "file", "mode.picture": "own.png"}},
    "51": {"class_type": "SaveImage", "inputs": {"filename_prefix": "late", "images": ["52", 0]}},
    "52": {"class_type": "Grow", "inputs": {"images": ["50", 0], "width": 8, "extra": 3, "also": ["40", 0]}},
    "60": {"class_type": "PackLoadPath", "inputs": {"video_path": "a.mp4", "file": "b", "text": "hello"}},
    "61": {"class_type": "PackDraw", "inputs": {"size": 5, "style": "plain"}},
    "62": {"class_type": "PackShow", "inputs": {"images": ["61", 0]}},
    "63": {"class_type": "PackShow", "inputs": {"images": ["20", 0], "note": {"size": 5, "of": ["40", 0]}}},
    "70": {"class_type": "Tags", "inputs": {"tags": {"__value__": ["a"]}}},
    "71": {"class_type": "Curve", "inputs": {"curve": {"__value__": [[0, 1]]}}},
}
"""Several workflows in one; a function has a part of it."""
PARTS = (
    ("4", "5", "6", "3", "8", "9"),
    ("20", "21"),
    ("20", "30", "31", "32"),
    ("40", "41"),
    ("40", "50", "51", "52"),
    ("60",),
    ("61", "62"),
    ("40", "20", "63"),
    ("70",),
    ("71",),
)
ODD: Mapping[str, Any] = {
    "salted": {"class_type": "Painter", "inputs": {"width": 3, SALT: "bob"}},
    "wrapped": {"class_type": "Painter", "inputs": {"width": {"__value__": 3}}},
    "keyed": {"class_type": "Painter", "inputs": {"width": 3}, "is_changed": 1},
    "broken": {"class_type": "PreviewImage", "inputs": {"images": ["nowhere", 0]}},
    "temp": {"class_type": "LoadImage", "inputs": {"image": "old.png [temp]"}},
    "%date:": {"class_type": "Painter", "inputs": {"width": 3}},
}
CHOICES = ["euler", "plain", 512, 7.5, 20, "a lighthouse", "own.png", "x"]
GOOD_NUMBERS = st.sampled_from([8, 64, 16, 1, 50])
NUMBERS = GOOD_NUMBERS | GOOD_NUMBERS | st.sampled_from([512, 1024, 2048, 0, -1, 51, 2**63, 10**6])
GOOD_TEXTS = st.sampled_from(
    ["a", "euler", "own.png", "sub/own.png", "x [output]", "%date:ss%/y", "none", "tenants/alice/x", "@gpu-2/x"]
)
BAD_TEXTS = st.sampled_from(
    [
        "old.png [temp]",
        "new.png [temp]",
        "../up",
        "tenants/bob/x",
        "",
        "file",
        "Both",
        "C:\\x",
        "/etc/passwd",
        "x" * 1200,
    ]
) | st.sampled_from([SECRET, f"say {SECRET}!", KEY, 'ä\n"', "\x7f", "shared.pdf"])
TEXTS = GOOD_TEXTS | GOOD_TEXTS | GOOD_TEXTS | BAD_TEXTS
VALUES = {
    "text": TEXTS,
    "integer": NUMBERS,
    "number": st.sampled_from([0.0, -0.0, 0.5, 1.0, 7.5, 100.0, 1e9]) | GOOD_NUMBERS,
    "boolean": st.booleans(),
    "choice": st.sampled_from(CHOICES),
    "image": st.just(ASSET.asset_id),
}
OF_KIND = {str: ("text", "image", "choice"), int: ("integer", "number", "choice"), float: ("number",)}
POLICIES = (
    policy_of(),
    policy_of(
        inputs={
            "KSampler.steps": {"max": 50},
            "*.width": {"max": 1024, "multiple_of": 8},
            "*.text": {"max_length": 9},
            "*.extra": {"max": 9},
            "*.of": {"max": 600},
        },
        budgets={"px": {"of": "width*height*batch_size?", "max": 512 * 512}},
    ),
    policy_of(inputs={"*.also": {"max": 600}}),
    policy_of(inputs={"LoadImage.image": {"deny": ["own*"]}}, budgets={"px": {"of": "width*extra?", "max": 100}}),
    policy_of(undeclared="refuse"),
    policy_of(max_prompt_bytes=600),
)
CONTEXTS = tuple(
    context_of(tenant, now=datetime(2026, 3, 4, 5, 6, second), jobs=Jobs(temp=temp), is_placed=second == 1)
    for second, (tenant, temp) in enumerate(
        [("alice", set()), ("alice", set()), ("alice", {"old.png"}), ("bob", set())]
    )
)
BY_ID: Mapping[str, frozenset[str]] = {"PackLoadPath": frozenset({"text"}), "Painter": frozenset({"width"})}


@st.composite
def a_function(draw: st.DrawFn) -> Any:
    chosen = {node_id for part in draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=2)) for node_id in part}
    odd = draw(st.none() | st.none() | st.none() | st.sampled_from(sorted(ODD)))
    graph = {node_id: copy.deepcopy(GRAPH[node_id]) for node_id in GRAPH if node_id in chosen}
    graph |= {odd: copy.deepcopy(ODD[odd])} if odd else {}
    places = [
        (f"{node_id}.{name}", value)
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if type(value) in OF_KIND and name != SALT
    ]
    filled = draw(st.lists(st.sampled_from(places), unique=True, max_size=4)) if places else []
    return function_of(graph, {f"p{number}": draw(a_parameter(*place)) for number, place in enumerate(filled)})


@st.composite
def a_parameter(draw: st.DrawFn, place: str, own: Any) -> Any:
    parameter: dict[str, Any] = {"type": draw(st.sampled_from(OF_KIND[type(own)])), "fills": [place]}
    if parameter["type"] == "choice":
        parameter["choices"] = [own, *CHOICES]
    return parameter


@st.composite
def a_call(draw: st.DrawFn, function: Function) -> dict[str, Any]:
    """With the workflow's own values, but for one or two."""
    arguments: dict[str, Any] = {}
    for name, parameter in function.parameters.items():
        node_id, _, input_name = parameter.fills[0].partition(".")
        own = function.graph[node_id]["inputs"][input_name]
        arguments[name] = ASSET.asset_id if parameter.type == "image" else own
    for name in draw(st.lists(st.sampled_from(sorted(arguments)), max_size=2)) if arguments else ():
        arguments[name] = draw(VALUES[function.parameters[name].type])
    return arguments


@st.composite
def a_story(draw: st.DrawFn) -> Any:
    """A function, and calls of it."""
    function = draw(a_function())
    numbers = st.integers(0, len(CONTEXTS) - 1)
    calls = draw(st.lists(st.tuples(a_call(function), numbers, st.booleans()), min_size=2, max_size=6))
    return function, draw(st.integers(0, len(POLICIES) - 1)), draw(st.booleans()), calls


@given(a_story())
def test_each_call_is_judged_as_its_whole_workflow_is(story: Any) -> None:
    function, policy, has_ids, calls = story
    for arguments, context, has_secret in (*calls, *calls):  # the second time there is more to go by
        known = replace(CONTEXTS[context], id_inputs=BY_ID if has_ids else NO_IDS)
        more = {"credentials": presented([SECRET] if has_secret else [])}
        expected = send(function, POLICIES[policy], arguments, known, **more)
        assert call(function, POLICIES[policy], arguments, known, **more) == expected

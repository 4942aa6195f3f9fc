"""What is kept of a call, and for which other calls it is good: each is judged as its whole workflow is, which test_template.py asks at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from policy.catalogue import read_catalogue
from policy.keyform import presented
from policy.needs import read_needs
from policy.patience import AT_ONCE_BYTES, Patience
from policy.salt import SALT
from policy.templates.template import MAX_WISHES
from tests.policy import graphs
from tests.policy.functions.calling import (
    ALICE,
    ASSET,
    OPEN,
    both,
    context_of,
    fills,
    function_of,
    kept,
    known,
    policy_of,
    template_of,
    text,
    whole,
)
from tests.policy.tenants import Jobs, request_of

SECRET = "a-secret-of-some-length"
TEXT: dict[str, Any] = {
    "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["2", 1]}},
    "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
}
SAVED: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "own.png", "upload": "image"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "%date:ss%"}},
}


def test_the_next_call_is_judged_by_what_is_kept() -> None:
    function = function_of(TEXT, {"words": text("1.text")})
    template = known(function, OPEN, {"words": "a"})
    assert [live.node_id for live in template.live] == ["1"]
    assert fills(template, {"words": 'a "b"\n'})
    both(function, OPEN, {"words": 'a "b"\n'})


def test_files_are_written_in_the_tenants_names_and_at_the_time_of_the_call() -> None:
    picture = {"type": "image", "fills": ["1.image"], "optional": True}
    function = function_of(SAVED, {"picture": picture, "name": text("2.filename_prefix")})
    for arguments in ({"name": "x"}, {"name": "y"}, {"picture": ASSET.asset_id, "name": "z"}):
        for second in (1, 2):
            both(function, OPEN, arguments, context=replace(ALICE, now=datetime(2026, 1, 1, 1, 1, second)))
    assert [live.node_id for live in known(function, OPEN, {"name": "x"}).live] == ["1", "2", "3"]


def test_a_prefix_without_a_date_is_written_once() -> None:
    graph = {**SAVED, "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    template = known(function_of(graph, {"date": text("3.filename_prefix")}), OPEN, {"date": "d"})
    assert [live.node_id for live in template.live] == ["1", "3"]
    assert template.originals["2"] == (("2", "filename_prefix", "x"),)


SALTED = {"1": {"class_type": "Painter", "inputs": {"width": 3, SALT: "bob"}}}
NOT_KEPT: Mapping[str, tuple[dict[str, Any], str, Any, dict[str, Any]]] = {
    "an input that nothing declares": (
        {"1": {"class_type": "Painter", "inputs": {"width": 3, "more": "a"}}},
        "1.more",
        "a",
        {},
    ),
    "what decides which inputs there are": (
        {"1": {"class_type": "Batch", "inputs": {"mode": "file", "mode.picture": "own.png"}}},
        "1.mode",
        "file",
        {},
    ),
    "a salt that the gate gives anew": (SALTED, "1.width", 3, {}),
    "a value in a wrapper": (
        {"1": {"class_type": "Grow", "inputs": {"images": ["2", 0], "width": {"__value__": 3}}}}
        | {"2": {"class_type": "LoadImage", "inputs": {"image": "own.png"}}},
        "2.image",
        "own.png",
        {},
    ),
    "a node with other keys": (
        {"1": {"class_type": "Painter", "inputs": {"width": 3}, "is_changed": 1}},
        "1.width",
        3,
        {},
    ),
    "a preview": ({"1": {"class_type": "LoadImage", "inputs": {"image": "old.png [temp]"}}}, "1.image", "a [temp]", {}),
    "an undeclared link that a line binds": (
        {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 5}}}
        | {"2": {"class_type": "Painter", "inputs": {"width": 3, "extra": ["1", 0]}}},
        "1.value",
        5,
        {"inputs": {"*.extra": {"max": 9}}},
    ),
    "a link in an undeclared object that a line binds": (
        {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 5}}}
        | {"2": {"class_type": "Painter", "inputs": {"width": 3, "extra": {"of": ["1", 0]}}}},
        "1.value",
        5,
        {"inputs": {"*.of": {"max": 9}}},
    ),
    "an undeclared input that a budget counts": (
        {"1": {"class_type": "Grow", "inputs": {"images": ["2", 0], "width": 3, "extra": 2}}}
        | {"2": {"class_type": "LoadImage", "inputs": {"image": "own.png"}}},
        "1.width",
        3,
        {"budgets": {"px": {"of": "width*extra", "max": 9}}},
    ),
    "a workflow that is pinned": (
        {"1": {"class_type": "Painter", "inputs": {"width": 3}}},
        "1.width",
        3,
        {
            "workflows": [{"file": "pin.json", "free": ["1.width"]}],
            "documents": {"pin.json": {"1": {"class_type": "Painter", "inputs": {"width": 3}}}},
        },
    ),
}


@pytest.mark.parametrize("case", NOT_KEPT)
def test_what_depends_on_more_is_judged_as_a_whole_each_time(case: str) -> None:
    graph, place, value, fields = NOT_KEPT[case]
    function = function_of(graph, {"value": {"type": "choice", "fills": [place], "choices": [value, 4, 10, "none"]}})
    policy = policy_of(**fields)
    assert kept(function, policy, {"value": value}) is None
    for other in (value, 4, 10) if isinstance(value, int) else (value, "none"):
        both(function, policy, {"value": other})


LINKED = {
    "1": {"class_type": "PrimitiveInt", "inputs": {"value": 64}},
    "2": {"class_type": "EmptyLatentImage", "inputs": {"width": ["1", 0], "height": 64, "batch_size": 1}},
}


@pytest.mark.parametrize(
    "fields", [{"inputs": {"*.width": {"max": 64}}}, {"budgets": {"px": {"of": "width*height", "max": 4096}}}]
)
def test_what_a_link_to_a_constant_brings_is_judged_with_each_call(fields: dict[str, Any]) -> None:
    function, policy = function_of(LINKED, {"size": whole("1.value")}), policy_of(**fields)
    template = known(function, policy, {"size": 64})
    assert [live.node_id for live in template.live] == ["1", "2"]
    assert both(function, policy, {"size": 8})[1] is None
    assert both(function, policy, {"size": 65})[1]["reason"] == "policy-violation"


def test_a_file_that_a_link_to_constants_names_is_judged_with_each_call() -> None:
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "sub"}},
        "2": {"class_type": "StringConcatenate", "inputs": {"string_a": ["1", 0], "string_b": "x", "delimiter": "/"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "own.png"}},
        "4": {
            "class_type": "PackSave",
            "inputs": {"images": ["3", 0], "output_path": ["2", 0], "filename_prefix": "p", "caption": "c"},
        },
    }
    function = function_of(graph, {"folder": text("1.value")})
    template = known(function, OPEN, {"folder": "sub"})
    assert fills(template, {"folder": "other"})
    assert not fills(template, {"folder": "../up"})
    for folder in ("other", "../up", "tenants/bob"):
        both(function, OPEN, {"folder": folder})


def test_values_that_the_policy_does_not_permit_are_refused() -> None:
    policy = policy_of(inputs={"CLIPTextEncode.text": {"deny": ["*secret*"]}})
    function = function_of(TEXT, {"words": text("1.text")})
    template = known(function, policy, {"words": "a"})
    assert not fills(template, {"words": "my secret"})
    assert both(function, policy, {"words": "my secret"})[1]["reason"] == "policy-violation"
    assert both(function, policy, {"words": "nothing"})[1] is None


@pytest.mark.parametrize("fields", [{}, {"inputs": {"*.text": {"max_length": 100}}}])
def test_a_credential_is_found_in_what_a_call_gives(fields: dict[str, Any]) -> None:
    policy, function = policy_of(**fields), function_of(TEXT, {"words": text("1.text")})
    more = {"credentials": presented([SECRET])}
    template = known(function, policy, {"words": "a"}, **more)
    for words in (SECRET, f"x{SECRET}", f"cg_0123456789ab_{'k' * 43}"):
        assert not fills(template, {"words": words}, **more)
        assert both(function, policy, {"words": words}, **more)[1]["reason"] == "credential-misplaced"
    assert fills(template, {"words": SECRET}), "of another caller's"


def test_a_credential_is_found_in_a_name_that_is_written_anew_and_in_the_workflow_itself() -> None:
    function = function_of(SAVED, {"name": text("2.filename_prefix")})
    dated = f"%date:ss%{SECRET}"
    template = known(function, OPEN, {"name": "a"})
    whole_name = presented([dated])
    assert not fills(template, {"name": dated}, credentials=whole_name), "ComfyUI gets another name"
    both(function, OPEN, {"name": dated}, credentials=whole_name)
    fixed = function_of(
        TEXT | {"3": {"class_type": "PackDraw", "inputs": {"size": 1, "style": SECRET}}}, {"words": text("1.text")}
    )
    template = known(fixed, OPEN, {"words": "a"})
    assert not fills(template, {"words": "a"}, credentials=presented([SECRET]))
    both(fixed, OPEN, {"words": "a"}, credentials=presented([SECRET]))


def test_a_preview_is_looked_for_each_time() -> None:
    function = function_of(SAVED, {"name": text("1.image")})
    context = context_of(jobs=Jobs(temp={"old.png"}))
    template = known(function, OPEN, {"name": "own.png"}, context=context)
    assert not fills(template, {"name": "old.png [temp]"}, context=context)
    both(function, OPEN, {"name": "old.png [temp]"}, context=context)


def test_a_file_that_is_not_accepted_and_one_that_takes_too_long_are_judged_as_a_whole() -> None:
    function = function_of(SAVED, {"name": text("1.image")})
    template = known(function, OPEN, {"name": "own.png"})
    assert not fills(template, {"name": "../up"})
    assert template.fill({"name": "own.png"}, request_of(ALICE), Patience(0)) is None
    both(function, OPEN, {"name": "../up"})


def test_large_calls_are_judged_as_a_whole() -> None:
    function = function_of(TEXT, {"words": text("1.text")})
    small = policy_of(max_prompt_bytes=300)
    template = known(function, OPEN, {"words": "a"})
    assert fills(template, {"words": "x" * 60_000})
    assert not fills(template, {"words": '"' * 65_500}), f"it is written with more than {AT_ONCE_BYTES}"
    assert not fills(template, {"words": "x" * 1000}, max_parts=900)
    template = known(function, small, {"words": "a"})
    most = 300 - template.fixed_bytes - 2
    assert fills(template, {"words": "x" * most})
    assert not fills(template, {"words": "x" * (most + 1)})
    for length in (most, most + 1):
        both(function, small, {"words": "x" * length})


def test_what_a_job_costs_is_known_by_what_decides_it() -> None:
    function = function_of(LINKED, {"size": whole("2.height"), "number": {"type": "number", "fills": ["2.batch_size"]}})
    template = known(function, OPEN, {"size": 64, "number": 1.0})
    assert not fills(template, {"size": 65, "number": 1.0})
    for size in range(MAX_WISHES + 1):
        both(function, OPEN, {"size": size, "number": 1.0})
    assert fills(template, {"size": MAX_WISHES, "number": 1.0})
    assert not fills(template, {"size": 0, "number": 1.0}), "it began anew"
    both(function, OPEN, {"size": 64, "number": 0.0})
    both(function, OPEN, {"size": 64, "number": -0.0})


def test_kinds_of_values_have_templates_of_their_own() -> None:
    function = function_of(LINKED, {"value": {"type": "number", "fills": ["2.batch_size"]}})
    assert known(function, OPEN, {"value": 1}) is not known(function, OPEN, {"value": 1.0})
    both(function, OPEN, {"value": 1})


def test_tenants_and_policies_have_templates_of_their_own() -> None:
    function, bob, strict = function_of(SAVED, {"name": text("2.filename_prefix")}), context_of("bob"), policy_of()
    for policy in (OPEN, strict):
        for context in (ALICE, bob):
            known(function, policy, {"name": "a"}, context=context)
            both(function, policy, {"name": "b"}, context=context)
    first = template_of(function, OPEN, {"name": "a"}, ALICE)
    assert first is not template_of(function, strict, {"name": "a"}, ALICE)
    assert first is not template_of(function, OPEN, {"name": "a"}, bob)


def test_another_catalogue_and_other_rows_of_custom_nodes_begin_anew() -> None:
    """Of what an input was before."""
    function = function_of({"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a"}}}, {"words": text("1.text")})
    known(function, OPEN, {"words": "a"})
    both(function, OPEN, {"words": "b"}, context=replace(ALICE, id_inputs={"CLIPTextEncode": frozenset({"text"})}))
    smaller = {"CLIPTextEncode": graphs.OBJECT_INFO["CLIPTextEncode"] | {"output_node": True}}
    both(function, OPEN, {"words": "b"}, context=replace(ALICE, catalogue=read_catalogue(smaller)))
    without = read_catalogue({"SaveImage": graphs.OBJECT_INFO["SaveImage"]})
    assert both(function, OPEN, {"words": "b"}, context=replace(ALICE, catalogue=without))[1] is not None


def test_inputs_that_name_bytes_under_an_id_are_written_with_each_call() -> None:
    context = replace(ALICE, id_inputs={"CheckpointLoaderSimple": frozenset({"ckpt_name"})})
    function = function_of(TEXT, {"words": text("1.text")})
    template = known(function, OPEN, {"words": "a"}, context=context)
    assert [live.node_id for live in template.live] == ["1", "2"]
    both(function, OPEN, {"words": "b"}, context=context)


def test_which_nodes_are_salted_depends_on_which_name_files() -> None:
    graph = {
        "1": {"class_type": "PackLoadVideo", "inputs": {"video": "a.mp4", "mode": "fast"}},
        "2": {"class_type": "Grow", "inputs": {"images": ["1", 0], "width": 3}},
        "3": {"class_type": "PackShow", "inputs": {"images": ["4", 0]}},
        "4": {"class_type": "PackDraw", "inputs": {"size": 3, "style": "plain"}},
    }
    function = function_of(graph, {"path": text("1.video"), "style": text("4.style")})
    template = known(function, OPEN, {"path": "a.mp4", "style": "plain"})
    assert template.written == frozenset({"1"})
    assert fills(template, {"path": "b.mp4", "style": "other"})
    assert not fills(template, {"path": "", "style": "plain"})
    for path in ("b.mp4", ""):
        both(function, OPEN, {"path": path, "style": "plain"})


def test_whether_comfyui_is_certain_to_accept_it_is_found_with_each_call() -> None:
    graph = {**LINKED, "3": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}}
    graph |= {"4": {"class_type": "Grow", "inputs": {"images": ["5", 0], "width": 3}}}
    graph |= {"5": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    bounded = {"EmptyImage": {"input": {"required": {"width": ["INT", {"min": 1, "max": 9}]}}, "output": ["IMAGE"]}}
    catalogue = read_catalogue(
        {
            name: {
                "input": {"required": {"images": ["IMAGE"]}},
                "output": [],
                "output_node": True,
                "python_module": "nodes",
            }
            for name in ("PreviewImage",)
        }
        | {
            "Grow": {
                "input": {"required": {"images": ["IMAGE"], "width": ["INT", {}]}},
                "output": ["IMAGE"],
                "python_module": "nodes",
            }
        }
        | {name: entry | {"python_module": "nodes"} for name, entry in bounded.items()}
    )
    context = replace(ALICE, catalogue=catalogue)
    function = function_of(
        {name: graph[name] for name in ("3", "4", "5")}, {"width": {"type": "seed", "fills": ["5.width"]}}
    )
    policy = policy_of(allow=["*"])
    for width in (8, 9, 9, 10, 10, 8):
        steps, _ = both(function, policy, {"width": width}, context=context)
        assert len(steps) == (2 if width < 10 else 3), "it is tried where that is not certain"


def test_what_a_job_needs_of_the_comfyui_that_runs_it_is_found_with_each_call() -> None:
    graph = {**SAVED, "4": {"class_type": "StringTrim", "inputs": {"string": "s", "mode": "Both"}}}
    graph |= {
        "5": {
            "class_type": "PackSave",
            "inputs": {"images": ["1", 0], "output_path": "o", "filename_prefix": "p", "caption": ["4", 0]},
        }
    }
    parameters = {"name": text("1.image"), "mode": text("4.mode")}
    function = function_of(graph, parameters, labels=["fast"])
    context = replace(ALICE, is_placed=True)
    template = known(function, OPEN, {"name": "own.png", "mode": "Both"}, context=context)
    assert fills(template, {"name": "other.png", "mode": "Left"}, context=context)
    for arguments in ({"name": "other.png", "mode": "Left"}, {"name": "x [output]", "mode": "None"}):
        steps, _ = both(function, OPEN, arguments, context=context)
        needs = read_needs(steps[-1].extras.needs)
        assert needs.labels == ("fast",)
        assert len(needs.files) == 1
    asked = request_of(context)
    little = next(
        effort
        for effort in range(200)
        if template.fill({"name": "a", "mode": "b"}, asked, Patience(effort)) is not None
    )
    assert template.fill({"name": "a", "mode": "b"}, request_of(ALICE), Patience(little - 1)) is not None
    both(function, OPEN, {"name": "own.png", "mode": "Both"})


def test_of_classes_that_are_not_the_same_everywhere_comfyui_is_asked_each_time() -> None:
    context = replace(ALICE, catalogue=replace(ALICE.catalogue, differing=frozenset({"EmptyLatentImage"})))
    graph = {**LINKED, "3": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}}
    graph |= {"4": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["5", 2]}}}
    graph |= {"5": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}}}
    function = function_of(graph, {"size": whole("2.height")})
    for known_in, count in ((ALICE, 2), (context, 3)):
        for _ in range(2):
            assert len(both(function, OPEN, {"size": 64}, context=known_in)[0]) == count

"""Whatever a client sends, what leaves the gate holds the rule of `upstream_rule.py`; what cannot be made to hold it is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.call import ClaimedJob, UpstreamReply
from policy.principal import Role
from policy.rule_context import RuleContext
from policy.rules.prompt import submit, submit_as_admin
from policy.violation import Violation
from tests.policy.names import HOSTILE, PIECES
from tests.policy.tenants import OBJECT_INFO, caller_of, drive, reply_of, request_of, uuid_of
from tests.policy.upstream_rule import FILES, find_breaches, is_link

# A loaded machine draws slowly, and that is no fault of the rule.
ALICE, ADMIN = caller_of("alice"), caller_of("ops", Role.ADMIN)
CALLERS = st.sampled_from([ALICE, ADMIN])
SHARED = ("example.png", "shared.pdf")
CLAIMED = ClaimedJob(uuid_of(7))
ACCEPTED = reply_of({"prompt_id": uuid_of(7), "number": 512.25, "node_errors": {}})
CLASSES = (
    "LoadImage",
    "LoadImageOutput",
    "LoadAudio",
    "LoadImageDataSetFromFolder",
    "PackLoadVideo",
    "PackLoadPath",
    "PackLoadFolder",
    "EmptyImage",
    "CheckpointLoaderSimple",
    "CLIPTextEncode",
    "SaveImage",
    "SaveLoRA",
    "SaveImageDataSetToFolder",
    "PackSave",
    "PreviewImage",
)
NAMES = {
    "file": st.sampled_from(["photo.png", "sub/photo.png", "photo.png [output]", "example.png", ""]),
    "folder": st.sampled_from(["cats", "cats/2", "tenants/alice/cats"]),
    "prefix": st.sampled_from(["ComfyUI", "day/%year%-%month%/x", "tenants/alice/x"]),
    "bare": st.sampled_from(["cat", "cat 2"]),
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.tuples(st.sampled_from(["1", "2", "3", "9"]), st.integers(-1, 3)).map(list),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["__value__", "workflow", "id", "title", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)
NO_TEXT = JSON.filter(lambda value: value is not None and not isinstance(value, str))
NO_OBJECT = JSON.filter(lambda value: value is not None and not isinstance(value, dict))
TEXTS = st.text(max_size=12)


def send(body: bytes, context: RuleContext) -> bytes | None:
    """What ComfyUI would be sent for this body, None when the gate refuses it."""
    request = request_of(context, method="POST", raw=body)
    try:
        if context is ADMIN:
            steps, _ = drive(submit_as_admin(request), UpstreamReply(200, {}))
            call = steps[0]
        else:
            steps, _ = drive(submit(request), CLAIMED, 512.25, ACCEPTED)
            call = steps[2]
    except Violation:
        return None
    assert (call.method, call.segments) == ("POST", ("prompt",))
    assert isinstance(call.body, bytes)
    return call.body


def breaches_of(body: bytes, context: RuleContext) -> list[str]:
    return find_breaches(body, OBJECT_INFO, None if context is ADMIN else "alice", SHARED)


@st.composite
def inputs_of(draw: st.DrawFn, class_type: str, earlier: dict[str, Any]) -> dict[str, Any]:
    """Good values for the declared inputs of a class; links lead to nodes that came before."""
    sources = [
        [node_id, output]
        for node_id, node in earlier.items()
        for output in range(len(OBJECT_INFO[node["class_type"]]["output"]))
    ]
    inputs: dict[str, Any] = {}
    for name, (kind, *_) in OBJECT_INFO[class_type]["input"]["required"].items():
        if (class_type, name) in FILES:
            inputs[name] = draw(NAMES[FILES[(class_type, name)]])
        elif isinstance(kind, list):
            inputs[name] = draw(st.sampled_from(kind))
        elif kind == "INT":
            inputs[name] = draw(st.integers(1, 4096))
        elif kind == "STRING":
            inputs[name] = draw(TEXTS)
        elif sources:
            inputs[name] = list(draw(st.sampled_from(sources)))
    return inputs


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for class_type in [draw(st.sampled_from(CLASSES[:8])), *draw(st.lists(st.sampled_from(CLASSES), max_size=6))]:
        node = {"class_type": class_type, "inputs": draw(inputs_of(class_type, nodes))}
        if draw(st.booleans()):
            node["_meta"] = {"title": draw(TEXTS)}
        nodes[str(len(nodes) + 1)] = node
    return nodes


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Bodies as good clients send them."""
    nodes = draw(graphs())
    extra = {
        "extra_pnginfo": {"workflow": {"id": "w", "nodes": []}},
        "preview_method": draw(st.sampled_from(["none", "auto", "taesd"])),
        "comfy_usage_source": "web",
        "create_time": 5,
    }
    fields = {
        "client_id": "tab",
        "extra_data": {key: extra[key] for key in sorted(draw(st.sets(st.sampled_from(sorted(extra)))))},
        "prompt_id": uuid_of(5),
        "number": draw(st.integers(-5, 5) | st.floats(-5, 5)),
        "front": draw(st.booleans()),
        "priority": draw(st.integers(0, 3)),
        "partial_execution_targets": sorted(draw(st.sets(st.sampled_from(sorted(nodes))))),
    }
    return {"prompt": nodes} | {key: fields[key] for key in sorted(draw(st.sets(st.sampled_from(sorted(fields)))))}


def written(document: Any) -> bytes:
    return json.dumps(document).encode()


@given(documents(), CALLERS)
def test_good_documents_pass_and_hold_the_rule(document: dict[str, Any], context: RuleContext) -> None:
    body = send(written(document), context)
    assert body is not None
    assert breaches_of(body, context) == []


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            found += [(value, key), *places(item)]
    return found


@st.composite
def odd_documents(draw: st.DrawFn) -> dict[str, Any]:
    """Good ones in which any parts were replaced or added by whatever JSON can say."""
    document = draw(documents())
    document |= draw(
        st.dictionaries(st.sampled_from(["client_id", "extra_data", "number", "front", "hook"]), JSON, max_size=1)
    )
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(places(document)))
        container[key] = draw(JSON)
    for node in document["prompt"].values() if isinstance(document["prompt"], dict) else ():
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict) and draw(st.booleans()):
            node["inputs"] |= draw(st.dictionaries(st.sampled_from(["zzz", "comfygate_tenant"]), JSON, max_size=1))
            node |= draw(st.dictionaries(st.sampled_from(["is_changed", "_meta"]), JSON, max_size=1))
    extra = document.get("extra_data")
    if isinstance(extra, dict):
        keys = ["client_id", "extra_pnginfo", "preview_method", "comfy_usage_source", "api_key_comfy_org", "more"]
        extra |= draw(st.dictionaries(st.sampled_from(keys), JSON, max_size=2))
    return document


@given(odd_documents(), CALLERS)
def test_what_passes_holds_the_rule(document: dict[str, Any], context: RuleContext) -> None:
    body = send(written(document), context)
    if body is not None:
        assert breaches_of(body, context) == []


# Each breaks one part of the rule in a document that holds it, wherever that is possible; False where it is not.
Break = Callable[[dict[str, Any], st.DataObject], bool]


def _some_node(document: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    found: dict[str, Any] = document["prompt"][data.draw(st.sampled_from(sorted(document["prompt"])))]
    return found


def _some_link(document: dict[str, Any], data: st.DataObject) -> tuple[str, list[Any]] | None:
    links = [
        (node_id, value)
        for node_id, node in document["prompt"].items()
        for value in node["inputs"].values()
        if is_link(value)
    ]
    return data.draw(st.sampled_from(links)) if links else None


def no_node(document: dict[str, Any], data: st.DataObject) -> bool:
    document["prompt"][data.draw(st.sampled_from(sorted(document["prompt"])))] = data.draw(NO_OBJECT)
    return True


def no_class(document: dict[str, Any], data: st.DataObject) -> bool:
    _some_node(document, data)["class_type"] = data.draw(NO_TEXT | TEXTS.filter(lambda text: text not in OBJECT_INFO))
    return True


def no_inputs(document: dict[str, Any], data: st.DataObject) -> bool:
    _some_node(document, data)["inputs"] = data.draw(NO_OBJECT)
    return True


def no_such_node(document: dict[str, Any], data: st.DataObject) -> bool:
    found = _some_link(document, data)
    if found is not None:
        found[1][0] = data.draw(TEXTS.filter(lambda text: text not in document["prompt"]))
    return found is not None


def no_such_output(document: dict[str, Any], data: st.DataObject) -> bool:
    found = _some_link(document, data)
    if found is not None:
        found[1][1] = data.draw(st.integers(-9, -1) | st.integers(20, 99))
    return found is not None


def a_cycle(document: dict[str, Any], data: st.DataObject) -> bool:
    found = _some_link(document, data)
    if found is None or not OBJECT_INFO[document["prompt"][found[0]]["class_type"]]["output"]:
        return False
    found[1][:] = [found[0], 0]
    return True


def no_text_for_a_client(document: dict[str, Any], data: st.DataObject) -> bool:
    value = data.draw(NO_TEXT.filter(lambda value: type(value) not in (int, float)))  # numbers are read as texts
    document["client_id"] = value
    document.setdefault("extra_data", {})["client_id"] = value
    return True


def no_extra_data(document: dict[str, Any], data: st.DataObject) -> bool:
    document["extra_data"] = data.draw(NO_OBJECT)
    return True


def no_such_target(document: dict[str, Any], data: st.DataObject) -> bool:
    document["partial_execution_targets"] = data.draw(
        st.lists(TEXTS.filter(lambda text: text not in document["prompt"]), min_size=1, max_size=2)
    )
    return True


def no_such_place(document: dict[str, Any], data: st.DataObject) -> bool:
    document["prompt_id"] = data.draw(TEXTS | NO_TEXT)
    return True


def no_number(document: dict[str, Any], data: st.DataObject) -> bool:
    container, key = data.draw(st.sampled_from(places(document["prompt"])))
    container[key] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    return True


def no_unicode(document: dict[str, Any], data: st.DataObject) -> bool:
    container, key = data.draw(st.sampled_from(places(document["prompt"])))
    container[key] = data.draw(st.characters(categories=["Cs"]))
    return True


BREAKS: list[Break] = [
    no_node,
    no_class,
    no_inputs,
    no_such_node,
    no_such_output,
    a_cycle,
    no_text_for_a_client,
    no_extra_data,
    no_such_target,
    no_such_place,
    no_number,
    no_unicode,
]


SPOILS_SOME = [no_such_node, no_such_output, a_cycle, no_such_target]


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
@settings(max_examples=60)
@given(document=documents(), context=CALLERS, data=st.data())
def test_what_breaks_the_rule_is_refused(
    breaks: Break, document: dict[str, Any], context: RuleContext, data: st.DataObject
) -> None:
    if breaks(document, data):
        body = send(written(document), context)
        # What spoils some outputs is left out with them, and the rest goes on.
        assert body is None or (breaks in SPOILS_SOME and breaches_of(body, context) == [])


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
@settings(max_examples=20)
@given(document=documents(), context=CALLERS, data=st.data())
def test_the_checker_sees_what_breaks_the_rule(
    breaks: Break, document: dict[str, Any], context: RuleContext, data: st.DataObject
) -> None:
    """Else the properties above would hold of anything."""
    body = send(written(document), context)
    assert body is not None
    upstream = json.loads(body)
    if breaks(upstream, data):
        assert breaches_of(written(upstream), context) != []


@given(
    st.sampled_from(sorted(name for name in FILES if name[0] in OBJECT_INFO)),
    st.sampled_from(HOSTILE) | st.lists(st.sampled_from(PIECES), max_size=5).map("".join) | JSON,
)
def test_files_are_the_tenants_own_or_the_workflow_is_refused(place: tuple[str, str], value: Any) -> None:
    class_type, name = place
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8}},
        "2": {"class_type": class_type, "inputs": {name: value}},
    }
    body = send(json.dumps({"prompt": prompt}, ensure_ascii=True).encode(), ALICE)
    if body is not None:
        assert breaches_of(body, ALICE) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("number", None),
        ("number", "first"),
        ("front", "no"),
        ("client_id", 5),
        ("client_id", True),
        ("prompt_id", "x"),
        ("extra_data", 5),
        ("partial_execution_targets", 5),
        ("partial_execution_targets", [77]),
        ("hook", {"a": 1}),
    ],
)
@pytest.mark.parametrize("context", [ALICE, ADMIN], ids=["tenant", "admin"])
def test_wrong_types_that_comfyui_would_refuse_never_reach_it(key: str, value: Any, context: RuleContext) -> None:
    prompt = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    body = send(written({"prompt": copy.deepcopy(prompt), key: value}), context)
    if body is not None:
        assert breaches_of(body, context) == []
        assert key not in json.loads(body) or json.loads(body)[key] != value

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.catalogue import Catalogue, read_catalogue
from policy.judge import ADMIN_POLICY, judge
from policy.violation import Reason, Violation
from policy.workflow import MALFORMED, NodeReason
from tests.policy.graphs import (
    CATALOGUE,
    OBJECT_INFO,
    SPELLINGS,
    codes,
    make_policy,
    make_prompt,
    node,
    refused,
    run,
    with_input,
    with_node,
)
from tests.policy.test_judge_outputs import BROKEN

SAVE = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}}


def chain(length: int) -> dict[str, Any]:
    blurs = {str(n): node("ImageBlur", image=[str(n - 1), 0], enabled=True) for n in range(1, length)}
    return {"0": node("LoadImage", image="a.png")} | blurs


def test_an_ordinary_workflow_passes_unchanged() -> None:
    judged = run(make_prompt(), client_id="c", prompt_id="p", priority=3, partial_execution_targets=["9"])
    assert judged.nodes == make_prompt()
    assert (judged.client_id, judged.prompt_id, judged.priority) == ("c", "p", 3.0)
    assert judged.partial_execution_targets == ("9",)
    assert judged.followed == ()


# Each row: what is wrong, the policy that finds it, and the errors (node, input, code); a bare code stands in the details.
ROWS: list[tuple[str, Any, dict[str, Any], set[tuple[str, str | None, str]] | str]] = [
    ("prompt null", None, {}, "prompt-missing"),
    ("no nodes", {}, {}, "prompt-empty"),
    ("saved by the web UI", {"nodes": [], "links": []}, {}, "ui-format"),
    ("id with a control character", with_node(SAVE, "a\x07"), {}, {("a\x07", None, "node-id-refused")}),
    ("node a list", with_node([]), {}, {("20", None, "node-malformed")}),
    ("node null", with_node(None), {}, {("20", None, "node-malformed")}),
    ("no class", with_node({"inputs": {}}), {}, {("20", None, "class-type-malformed")}),
    (
        "class a list",
        with_node({"class_type": ["SaveImage"], "inputs": {}}),
        {},
        {("20", None, "class-type-malformed")},
    ),
    ("class an object", with_node({"class_type": {}, "inputs": {}}), {}, {("20", None, "class-type-malformed")}),
    ("no inputs", with_node({"class_type": "SaveImage"}), {}, {("20", None, "inputs-missing")}),
    ("inputs a list", with_node({"class_type": "SaveImage", "inputs": []}), {}, {("20", None, "inputs-missing")}),
    ("path for a picture", with_input("9", "images", "/etc/passwd"), {}, {("9", "images", "literal-for-link")}),
    ("object for a picture", with_input("9", "images", {"a": 1}), {}, {("9", "images", "literal-for-link")}),
    ("list for a picture", with_input("9", "images", [8, 0]), {}, {("9", "images", "literal-for-link")}),
    (
        "wrapper in an object",
        with_input("3", "steps", {"a": {"__value__": 1}}),
        {},
        {("3", "steps", "literal-malformed")},
    ),
    (
        "undeclared",
        with_input("9", "zzz", 1),
        {"undeclared": "refuse"},
        {("9", "zzz", "input-undeclared")},
    ),
    ("too large", make_prompt(), {"max_prompt_bytes": 100}, "prompt-too-large"),
    ("too many", make_prompt(), {"max_nodes": 6}, "too-many-nodes"),
    ("too deep", chain(6), {"max_depth": 5}, "graph-too-deep"),
    ("denied", make_prompt(), {"deny": ["VAE*"]}, {("8", None, "class-not-permitted")}),
    ("not listed", with_node(node("Secret", text="x")), {}, {("20", None, "class-not-permitted")}),
    ("unknown", with_node(node("Ghost", text="x")), {}, {("20", None, "class-not-permitted")}),
    (
        "linked",
        with_input("3", "steps", ["20", 0]) | {"20": node("Add", a=1, b=2)},
        {"inputs": {"*.steps": {"max": 50}}},
        {("3", "steps", "input-linked")},
    ),
    (
        "missing",
        {key: value for key, value in make_prompt().items() if key != "3"}
        | {"3": node("KSampler", **{k: v for k, v in make_prompt()["3"]["inputs"].items() if k != "denoise"})},
        {"inputs": {"*.denoise": {"max": 0.5}}},
        {("3", "denoise", "input-missing")},
    ),
    (
        "text for a number",
        with_input("3", "steps", "20"),
        {"inputs": {"KSampler.steps": {"max": 50}}},
        {("3", "steps", "value-of-other-type")},
    ),
    ("small", make_prompt(), {"inputs": {"KSampler.steps": {"min": 21}}}, {("3", "steps", "value-too-small")}),
    ("large", make_prompt(), {"inputs": {"*.steps": {"max": 19}}}, {("3", "steps", "value-too-large")}),
    ("step", make_prompt(), {"inputs": {"*.steps": {"multiple_of": 3}}}, {("3", "steps", "value-not-a-multiple")}),
    (
        "choice",
        make_prompt(),
        {"inputs": {"CheckpointLoaderSimple.ckpt_name": {"allow": ["flux*"]}}},
        {("4", "ckpt_name", "value-not-allowed")},
    ),
    ("word", make_prompt(), {"inputs": {"*.text": {"deny": ["blur*"]}}}, {("7", "text", "value-denied")}),
    ("long", make_prompt(), {"inputs": {"*.text": {"max_length": 6}}}, {("6", "text", "value-too-long")}),
    (
        "over budget",
        make_prompt(),
        {"budgets": {"px": {"of": "width*height", "max": 9}}},
        {("5", "width", "budget-exceeded")},
    ),
    (
        "not pinned",
        with_input("3", "steps", 21),
        {"workflows": [{"file": "w"}], "documents": {"w": make_prompt()}},
        {("3", "steps", "workflow-not-pinned")},
    ),
]


@pytest.mark.parametrize(("prompt", "fields", "found"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_every_fault_is_named(
    prompt: Any, fields: dict[str, Any], found: set[tuple[str, str | None, str]] | str
) -> None:
    violation = refused(copy.deepcopy(prompt), make_policy(**copy.deepcopy(fields)))
    if isinstance(found, str):
        assert violation.details.startswith(found)
        code = NodeReason(found)
    else:
        assert codes(violation) == found
        code = NodeReason(next(iter(found))[2])
    expected = Reason.WORKFLOW_MALFORMED if code in MALFORMED else Reason.POLICY_VIOLATION
    assert violation.reason is expected


def test_every_code_has_a_row_and_a_line_in_the_documentation() -> None:
    rows = {row[3] if isinstance(row[3], str) else next(iter(row[3]))[2] for row in ROWS}
    elsewhere = {"body-not-object", "field-malformed", "catalogue-unknown", *(code for _, _, code in BROKEN)}
    assert rows | elsewhere == set(NodeReason)
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
    assert set(NodeReason) <= documented


def test_codes_of_the_body_and_of_the_gate() -> None:
    with pytest.raises(Violation, match="object") as caught:
        judge(b"[]", make_policy(), CATALOGUE)
    assert caught.value.details == "body-not-object"
    with pytest.raises(Violation, match="Try again") as caught:
        run(make_prompt(), catalogue=Catalogue())
    assert caught.value.details == "catalogue-unknown"
    violation = refused(make_prompt(), client_id=True)
    assert violation.details.startswith("field-malformed")
    assert violation.reason is Reason.WORKFLOW_MALFORMED


def test_all_faults_are_found_at_once() -> None:
    prompt = make_prompt()
    prompt["4"]["class_type"] = "Ghost"
    prompt["3"]["inputs"]["steps"] = 99
    prompt["5"]["inputs"]["batch_size"] = True
    prompt["9"]["inputs"]["images"] = ["nowhere", 0]
    prompt["6"] = []
    policy = make_policy(inputs={"*.steps": {"max": 50}, "*.batch_size": {"max": 4}})
    violation = refused(prompt, policy, client_id=True)
    assert codes(violation) == {
        ("4", None, "class-not-permitted"),
        ("6", None, "node-malformed"),
        ("3", "steps", "value-too-large"),
        ("5", "batch_size", "value-of-other-type"),
        ("9", "images", "link-node-missing"),
    }
    assert "client_id" in violation.details


def test_a_class_that_is_permitted_and_not_installed_is_told_in_comfyuis_words() -> None:
    prompt = with_node(node("Ghost", text="x"))
    prompt["20"]["_meta"] = {"title": "My Ghost"}
    violation = refused(prompt, ADMIN_POLICY)
    assert (violation.error_type, violation.message) == (
        "missing_node_type",
        "Node 'My Ghost' not found. The custom node may not be installed.",
    )
    assert violation.extra_info == {"node_id": "20", "class_type": "Ghost", "node_title": "My Ghost"}
    untitled = refused(with_node(node("Ghost", text="x")), ADMIN_POLICY)
    assert untitled.message.startswith("Node 'Ghost' not found")
    policy = make_policy(allow=["Ghost", "KSampler"])
    assert refused(with_node(node("Ghost", text="x")), policy).error_type is None, (
        "what the policy refuses is told first"
    )


def test_nobody_can_tell_an_unknown_class_from_a_refused_one() -> None:
    """Nor by links to it: its outputs are not looked at."""
    answers = []
    for class_type in ("Secret", "Nope!!"):
        prompt = with_input("9", "images", ["20", 77]) | {"20": node(class_type, text=["9", 9])}
        violation = refused(prompt)
        answers.append(str((violation.message, violation.details, violation.node_errors)).replace(class_type, "X"))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_are_other_names(spelling: str) -> None:
    assert refused(with_node(node(spelling, text="x")), ADMIN_POLICY).error_type == "missing_node_type"


@pytest.mark.parametrize(
    ("prompt", "body"),
    [
        (make_prompt(), {"client_id": True}),
        (make_prompt(), {"extra_data": {"client_id": True}}),
        (make_prompt(), {"extra_data": {"client_id": True}, "client_id": None}),
        (make_prompt(), {"extra_data": "x", "client_id": "c"}),
        (with_node({"class_type": "SaveImage"}), {}),
        (with_node({"class_type": "SaveImage", "inputs": None}), {}),
        (make_prompt(), {"partial_execution_targets": "9"}),
        (make_prompt(), {"partial_execution_targets": 9}),
        (with_node(None), {}),
        (with_input("3", "latent_image", ["3", 0]), {}),
    ],
)
def test_what_comfyui_takes_for_granted_is_asked_of_admins_too(prompt: Any, body: dict[str, Any]) -> None:
    """OPEN opens classes and values, nothing else."""
    assert refused(copy.deepcopy(prompt), ADMIN_POLICY, **body).reason is Reason.WORKFLOW_MALFORMED


def test_other_keys_of_a_node_are_left_out() -> None:
    prompt = make_prompt()
    prompt["9"]["is_changed"] = "forged"
    prompt["9"]["_meta"] = {"title": "t", "other": 1}
    prompt["8"]["_meta"] = "x"
    judged = run(prompt, ADMIN_POLICY, number="first", front=True, extra_data={"mine": {"a": 1}, "create_time": 5})
    assert judged.nodes["9"] == make_prompt()["9"] | {"_meta": {"title": "t", "other": 1}}
    assert "_meta" not in judged.nodes["8"]
    assert judged.extra_data == {}
    assert judged.priority == 0
    assert [notice.code for notice in judged.notices] == ["extra-data-left-out", "node-keys-left-out"]
    assert judged.notices[1].message.endswith("were kept: 8, 9.")


def test_many_ids_are_told_short() -> None:
    prompt = make_prompt() | {f"x{n}": node("ImageBlur", image=["gone", 0], enabled=True) for n in range(30)}
    assert run(prompt).notices[0].message.endswith("x26 and 10 more.")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
def test_numbers_that_are_none_are_no_json(number: bytes) -> None:
    body = b'{"prompt": %s, "priority": %s}' % (orjson.dumps(make_prompt()), number)
    with pytest.raises(Violation) as caught:
        judge(body, ADMIN_POLICY, CATALOGUE)
    assert caught.value.reason is Reason.BODY_MALFORMED


def test_a_class_hidden_behind_a_duplicate_key_is_refused() -> None:
    body = b'{"prompt":{"1":{"class_type":"Secret","class_type":"LoadImage","inputs":{}}}}'
    with pytest.raises(Violation, match="duplicate"):
        judge(body, make_policy(), CATALOGUE)


def test_longer_cycles_are_named_in_full() -> None:
    prompt = chain(4)
    prompt["1"]["inputs"]["image"] = ["3", 0]
    violation = refused(prompt | {"9": node("SaveImage", images=["3", 0], filename_prefix="x")})
    assert codes(violation) == {(key, None, "dependency_cycle") for key in "123"}
    assert "1 (ImageBlur) -> 3 (ImageBlur) -> 2 (ImageBlur) -> 1 (ImageBlur)" in violation.details
    assert violation.node_errors["1"]["dependent_outputs"] == ["9"]


def test_depth_does_not_depend_on_the_order_of_nodes() -> None:
    forward = chain(6)
    backward = dict(reversed(forward.items()))
    for prompt in (forward, backward):
        run(copy.deepcopy(prompt), make_policy(max_depth=6))
        assert "chain of 6 nodes" in refused(copy.deepcopy(prompt), make_policy(max_depth=5)).details


def test_a_chain_of_refused_nodes_is_no_cycle() -> None:
    prompt = {"1": node("Secret"), "2": node("ImageBlur", image=["1", 5], enabled=False)}
    assert codes(refused(prompt)) == {("1", None, "class-not-permitted")}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("curve", {"points": [[0, 1]]}, {"points": [[0, 1]]}),
        ("curve", {"__value__": [[0, 1]]}, {"__value__": [[0, 1]]}),
        ("curve", {"__value__": 5}, 5),
        ("curve", None, None),
    ],
)
def test_widgets_pass(name: str, value: Any, kept: Any) -> None:
    assert run(with_node(node("Curve", **{name: value}))).nodes["20"]["inputs"] == {name: kept}


@pytest.mark.parametrize(
    "value",
    [
        {"__value__": ["4", 0]},
        {"a": [{"__value__": 1}]},
        {"__value__": {"__value__": "x"}},
        {"__value__": [1], "extra": 1},
    ],
)
def test_wrappers_hide_nothing(value: Any) -> None:
    undeclared = with_node(node("Curve", zzz=value))
    if "extra" in value:  # ComfyUI takes nothing out of a wrapper in an undeclared input
        assert run(undeclared, ADMIN_POLICY).nodes["20"]["inputs"] == {"zzz": value}
        undeclared = with_node(node("Curve", curve=value))
    for prompt in (undeclared, with_node(node("Curve", curve=value)), with_node(node("LoadImage", image=value))):
        assert {found[2] for found in codes(refused(prompt, ADMIN_POLICY))} == {"literal-malformed"}


def test_wrapped_scalars_are_judged_like_plain_ones() -> None:
    prompt = with_node(node("LoadImage", image={"__value__": "a.png"}))
    assert run(prompt).nodes["20"]["inputs"] == {"image": "a.png"}
    prompt = with_input("3", "steps", {"__value__": 99})
    assert codes(refused(prompt, make_policy(inputs={"*.steps": {"max": 50}}))) == {("3", "steps", "value-too-large")}
    assert run(with_node(node("Tags", tags={"__value__": ["a", "b"]}))).nodes["20"]["inputs"]["tags"] == {
        "__value__": ["a", "b"]
    }
    assert codes(refused(with_node(node("LoadImage", image={"__value__": ["a.png"]})))) == {
        ("20", "image", "literal-malformed")
    }


def test_dynamic_inputs_are_those_of_the_choice() -> None:
    resize = node("Resize", image=["8", 0], resize_type="by size", width=9)
    resize["inputs"] |= {"resize_type.width": 64, "resize_type.height": 64, "resize_type.multiplier": 1}
    strict = make_policy(undeclared="refuse")
    assert codes(refused(with_node(resize), strict)) == {
        ("20", "width", "input-undeclared"),
        ("20", "resize_type.multiplier", "input-undeclared"),
    }
    batch = {"images.image0": ["8", 0], "images.image2": ["8", 0], "images.image3": ["8", 0], "images": 1}
    assert codes(refused(with_node(node("Batch", **batch)), strict)) == {
        ("20", "images.image3", "input-undeclared"),
        ("20", "images", "input-undeclared"),
    }


@pytest.mark.parametrize("choice", ["by size", {"__value__": "by size"}])
def test_dynamic_inputs_are_bound_like_others(choice: Any) -> None:
    inputs = {"image": ["8", 0], "resize_type": choice, "resize_type.width": 4096, "resize_type.height": 64}
    by_line = make_policy(inputs={"*.width": {"max": 2048}})
    assert codes(refused(with_node(node("Resize", **inputs)), by_line)) == {
        ("20", "resize_type.width", "value-too-large")
    }
    by_budget = make_policy(budgets={"px": {"of": "width*height", "max": 4096 * 63}})
    prompt = with_node(node("Resize", **inputs))
    assert ("20", "resize_type.height", "budget-exceeded") in codes(refused(prompt, by_budget)) or (
        "20",
        "resize_type.width",
        "budget-exceeded",
    ) in codes(refused(with_node(node("Resize", **inputs)), by_budget))


def test_credentials_go_only_where_a_service_is_called() -> None:
    extra = {"auth_token_comfy_org": "t", "preview_method": "auto"}
    assert run(make_prompt(), extra_data=extra).extra_data == {"preview_method": "auto"}
    paid = with_node(node("Paid", prompt="x"))
    assert run(paid, extra_data=extra).extra_data == {"preview_method": "auto", "auth_token_comfy_org": "t"}


def test_the_hash_knows_like_workflows() -> None:
    def hash_of(prompt: dict[str, Any]) -> str:
        return run(prompt).workflow_hash

    first = hash_of(make_prompt())
    assert hash_of(with_input("3", "seed", 8)) == first
    assert hash_of(with_input("6", "text", "other")) == first
    assert hash_of(with_input("3", "steps", 21)) != first
    assert hash_of(with_input("5", "width", 1024)) != first
    assert hash_of(with_input("3", "positive", ["7", 0])) != first
    assert hash_of(with_node(copy.deepcopy(SAVE))) != first
    assert hash_of(with_input("3", "steps", ["20", 0]) | {"20": node("PrimitiveInt", value=1)}) != first


def test_bad_ids_are_not_echoed_at_length() -> None:
    violation = refused({"x" * 10_000: node("Secret" * 1000), "1": node("Ghost" * 1000)})
    assert len(orjson.dumps(violation.node_errors)) < 2000


def test_a_renewed_catalogue_counts_at_once() -> None:
    policy = make_policy()
    run(make_prompt(), policy)
    fewer = read_catalogue({name: entry for name, entry in OBJECT_INFO.items() if name != "VAEDecode"})
    with pytest.raises(Violation):
        run(make_prompt(), policy, fewer)

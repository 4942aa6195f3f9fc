from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from policy.catalogue import read_catalogue
from policy.lint import Code, Finding, lint, list_every_input, summarize
from policy.settings import PolicySettings
from tests.policy.graphs import CATALOGUE, OBJECT_INFO, make_prompt

PRESETS = {"core": frozenset({*OBJECT_INFO} - {"Paid", "Secret"}), "api": frozenset({"Paid"})}
REPLACEMENTS: dict[str, Any] = {"OldSampler": [{"new_node_id": "KSampler"}], "Odd": [], "Odder": ["x"]}


def found(settings: dict[str, Any], extra: dict[str, Any] | None = None, **more: Any) -> list[tuple[str, str]]:
    catalogue = read_catalogue(OBJECT_INFO | (extra or {}))
    policies = {"p": PolicySettings.model_validate(settings)}
    return [
        (finding.code.value, f"{finding.key}: {finding.message}")
        for finding in lint("p", policies, PRESETS, catalogue, REPLACEMENTS, **more)
    ]


def custom(name: str, kind: str = "STRING", **options: Any) -> dict[str, Any]:
    return {"C": {"input": {"required": {name: [kind, options]}}, "python_module": "custom_nodes.x"}}


# Each row: the policy, classes that ComfyUI has besides, and what is found.
ROWS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {}, "allows-nothing", "policies.p.allow"),
    ({"allow": ["KSampler", "Ghost"]}, {}, "class-unknown", "'Ghost'"),
    ({"allow": ["KSampler", "Zz*"]}, {}, "glob-matches-nothing", "'Zz*'"),
    ({"allow": ["OldSampler"]}, {}, "class-replaced", "by 'KSampler'"),
    ({"allow": ["Odd"]}, {}, "class-replaced", "another class"),
    ({"allow": ["Odder"]}, {}, "class-replaced", "another class"),
    ({"allow": ["@api"]}, {}, "calls-paid-service", "'Paid'"),
    ({"allow": ["C"]}, custom("file_path"), "takes-path", "'file_path'"),
    ({"allow": ["C"]}, custom("URL"), "takes-url", "'URL'"),
    ({"allow": ["C"]}, custom("code"), "takes-code", "'code'"),
    ({"allow": ["@core"], "deny": ["VAE*"]}, {}, "preset-member-denied", "VAEDecode"),
    ({"allow": ["@core"], "deny": ["*"]}, {}, "preset-member-denied", "and 11 more"),
    ({"allow": ["@core"], "deny": ["Ghost"]}, {}, "deny-matches-nothing", "'Ghost'"),
    ({"allow": ["@core"], "inputs": {"KSampler.stesp": {"max": 1}}}, {}, "input-unknown", '"KSampler.stesp"'),
    ({"allow": ["@core"], "inputs": {"Paid.prompt": {"max_length": 1}}}, {}, "input-of-refused-class", '"Paid.prompt"'),
    ({"allow": ["@core"], "budgets": {"b": {"of": "length", "max": 1}}}, {}, "budget-binds-nothing", "budgets.b"),
]


@pytest.mark.parametrize(("settings", "extra", "code", "words"), ROWS)
def test_mistakes_are_found(settings: dict[str, Any], extra: dict[str, Any], code: str, words: str) -> None:
    findings = found(settings, extra)
    assert [finding[0] for finding in findings] == [code]
    assert words in findings[0][1]


def test_a_sound_policy_has_no_findings() -> None:
    sound = {
        "allow": ["@core", "KSampler", "CLIP*"],
        "deny": ["Paid", "@api"],
        "inputs": {"*.steps": {"max": 50}, "Resize.resize_type.multiplier": {"max": 4}, "*.image2": {"deny": [1]}},
        "budgets": {"px": {"of": "width*height", "max": 4096}},
    }
    assert found(sound) == []


def test_excluded_classes_are_named_with_their_reason() -> None:
    findings = found({"allow": ["KSampler"]}, excluded={"KSampler": "it samples", "Ghost": "x"})
    assert findings == [("class-excluded", "policies.p.allow: 'KSampler' stands in no preset: it samples.")]


def test_a_pinned_workflow_that_cannot_run_is_found() -> None:
    settings = {"workflows": [{"file": "w"}], "deny": ["VAE*"]}
    findings = found(settings, pinned_documents={"w": make_prompt()})
    assert [finding[0] for finding in findings] == ["pinned-class-denied"]
    assert found({"workflows": [{"file": "w"}]}, pinned_documents={"w": make_prompt()}) == []
    (finding,) = found(
        {"workflows": [{"file": "w"}]}, pinned_documents={"w": {"1": {"class_type": "Gone", "inputs": {}}}}
    )
    assert (finding[0], "no class Gone" in finding[-1]) == ("class-unknown", True)


@pytest.mark.parametrize("extra", [custom("file_path", "INT"), custom("path", forceInput=True), custom("text")])
def test_other_inputs_are_no_finding(extra: dict[str, Any]) -> None:
    assert found({"allow": ["C"]}, extra) == []


def test_all_inputs_of_all_choices_are_listed() -> None:
    assert set(list_every_input(CATALOGUE.classes["Resize"])) == {
        "image",
        "resize_type",
        "resize_type.width",
        "resize_type.height",
        "resize_type.multiplier",
    }
    slot = ["COMFY_DYNAMICSLOT_V3", {"inputs": {"required": {"n": ["INT", {}]}}}]
    entry = {"C": {"input": {"required": {"x": slot, "e": ["COMFY_DYNAMICCOMBO_V3", {}]}}}}
    assert set(list_every_input(read_catalogue(entry).classes["C"])) == {"x", "x.n", "e"}


def test_every_code_has_a_row_and_a_line_in_the_documentation() -> None:
    assert {row[2] for row in ROWS} | {"class-excluded", "pinned-class-denied"} == set(Code)
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    assert set(Code) <= set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))


def test_what_cannot_be_compiled_is_an_error() -> None:
    with pytest.raises(ValueError, match="no preset @nope"):
        found({"allow": ["@nope"]})


def test_many_classes_of_one_kind_are_one_sentence() -> None:
    paths = [
        Finding(Code.TAKES_PATH, "policies.p.allow", f"'N{number}' takes a path.", f"N{number}") for number in range(9)
    ]
    lines = summarize([*paths, Finding(Code.TAKES_URL, "policies.p.allow", "'U' takes a URL.", "U")])
    assert lines == [
        "policies.p.allow: 9 permitted classes take a path as free text: N0, N1, N2, N3, N4 and 4 more. "
        "Constrain the inputs or deny the classes.",
        "policies.p.allow: 'U' takes a URL.",
    ]
    assert summarize([]) == []


def test_what_is_about_no_class_is_never_joined() -> None:
    found = [Finding(Code.CLASS_UNKNOWN, "policies.p.allow", f"no class {number}") for number in range(5)]
    assert len(summarize(found)) == 5

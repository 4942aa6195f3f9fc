from __future__ import annotations

import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from policy.settings import Budget, InputConstraint, PinnedFile, PolicySettings


def read(text: str) -> PolicySettings:
    return PolicySettings.model_validate(tomllib.loads(text))


def test_a_policy_is_read_from_toml() -> None:
    settings = read("""
        extend = "base"
        allow = ["KSampler", "CLIPText*", "@core-image"]
        deny = ["Evil"]
        max_nodes = 10
        max_depth = 5
        max_prompt_bytes = "1MiB"
        workflows = [{ file = "portrait.json", free = ["6.text", "3.seed"] }]
        [inputs]
        "KSampler.steps" = { min = 1, max = 50 }
        "*.sampler_name" = { allow = ["euler*", 3] }
        [budgets]
        pixels = { of = "width * height*batch_size?", max = 4194304 }
    """)
    assert settings.max_prompt_bytes == 2**20
    assert settings.inputs["KSampler.steps"].max == 50
    assert settings.budgets["pixels"].factors == (("width", True), ("height", True), ("batch_size", False))
    assert settings.workflows == (PinnedFile(file="portrait.json", free=("6.text", "3.seed")),)


def test_nothing_said_is_nothing_allowed() -> None:
    settings = PolicySettings()
    assert settings.allow == ()
    assert settings.max_nodes == 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unknown": 1}, "Extra inputs"),
        ({"max_nodes": 0}, "greater than or equal to 1"),
        ({"max_nodes": True}, "valid integer"),
        ({"max_depth": 401}, "less than or equal to 400"),
        ({"max_prompt_bytes": "much"}, "write a size such as"),
        ({"inputs": {"steps": {"max": 1}}}, "names no input"),
        ({"inputs": {".steps": {"max": 1}}}, "names no input"),
        ({"inputs": {"KSampler.": {"max": 1}}}, "names no input"),
        ({"workflows": [{"file": ""}]}, "at least 1 character"),
        ({"workflows": [{"file": "a", "free": ["text"]}]}, "not an input of a node"),
    ],
)
def test_mistakes_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PolicySettings.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "constrains nothing"),
        ({"min": 2, "max": 1}, "no value would pass"),
        ({"max": "50"}, "finite number"),
        ({"max": True}, "finite number"),
        ({"max": float("nan")}, "finite number"),
        ({"max": float("inf")}, "finite number"),
        ({"multiple_of": 0}, "greater than 0"),
        ({"multiple_of": -8}, "greater than 0"),
        ({"allow": []}, "permits no value"),
        ({"allow": [None]}, "string, a number or a boolean"),
        ({"deny": [[1]]}, "string, a number or a boolean"),
        ({"const": float("inf")}, "finite"),
        ({"const": 1, "max": 2}, "stands alone"),
        ({"max_length": -1}, "greater than or equal to 0"),
        ({"max_length": True}, "valid integer"),
        ({"max_length": 5, "max": 3}, "for text"),
        ({"max": 3, "allow": ["a"]}, "for numbers"),
        ({"min": 3, "deny": [True]}, "for numbers"),
    ],
)
def test_constraints_without_meaning_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InputConstraint.model_validate(fields)


@pytest.mark.parametrize("value", [1, 1.5, "a", True])
def test_values_keep_their_type(value: Any) -> None:
    kept = InputConstraint(const=value).const
    assert (type(kept), kept) == (type(value), value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"of": "width*", "max": 1}, "not a product"),
        ({"of": "", "max": 1}, "not a product"),
        ({"of": "width+height", "max": 1}, "not a product"),
        ({"of": "width?", "max": 1}, "only optional factors"),
        ({"of": "width*width", "max": 1}, "twice"),
        ({"of": "width*width?", "max": 1}, "twice"),
        ({"of": "width", "max": 0}, "greater than 0"),
        ({"of": "width", "max": "9"}, "finite number"),
    ],
)
def test_budgets_without_meaning_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Budget.model_validate(fields)

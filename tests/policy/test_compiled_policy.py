from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest

from policy.catalogue import read_catalogue
from policy.compiled_policy import ADMIN_POLICY, MAX_REMEMBERED, Policy, compile_policy, list_chain
from policy.name_patterns import compile_patterns
from policy.settings import PolicySettings
from tests.policy.graphs import CATALOGUE, OBJECT_INFO, PRESETS, make_prompt


def compile_all(name: str, documents: dict[str, Any] | None = None, /, **policies: dict[str, Any]) -> Policy:
    settings = {key: PolicySettings.model_validate(fields) for key, fields in policies.items()}
    return compile_policy(name, settings, PRESETS, documents or {})


def test_deny_beats_allow_through_the_chain() -> None:
    policy = compile_all(
        "c",
        a={"deny": ["KSampler"], "allow": ["SaveImage"]},
        b={"extend": "a", "allow": ["@core", "VAE*"]},
        c={"extend": "b", "allow": ["KSampler"], "deny": ["@api"]},
    )
    verdicts = {name: policy.permits(name) for name in ("KSampler", "SaveImage", "CheckpointLoaderSimple", "VAEDecode")}
    assert verdicts == {"KSampler": False, "SaveImage": True, "CheckpointLoaderSimple": True, "VAEDecode": True}
    assert not policy.permits("Paid")
    assert not policy.permits("Secret")


def test_nothing_listed_permits_nothing() -> None:
    policy = compile_all("a", a={})
    assert not any(policy.permits(name) for name in OBJECT_INFO)


def test_the_extending_policy_decides_numbers_and_lines() -> None:
    policies: dict[str, Any] = {
        "a": {
            "max_nodes": 5,
            "max_prompt_bytes": 100,
            "inputs": {"*.steps": {"max": 10}, "*.cfg": {"max": 5}},
            "budgets": {"px": {"of": "width", "max": 1}, "py": {"of": "height", "max": 1}},
        },
        "b": {
            "extend": "a",
            "max_depth": 7,
            "inputs": {"*.steps": {"max": 20}},
            "budgets": {"px": {"of": "width", "max": 2}},
        },
    }
    policy = compile_all("b", **policies)
    assert (policy.max_nodes, policy.max_depth, policy.max_prompt_bytes) == (5, 7, 100)
    assert [line.settings.max for line in policy.constraints.of("K", "steps")] == [20]
    assert [line.settings.max for line in policy.constraints.of("K", "cfg")] == [5]
    assert {key: budget.max for key, budget in policy.budgets.items()} == {"px": 2, "py": 1}
    assert compile_all("a", **policies).max_depth == 100


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({}, "there is no policy 'a'"),
        ({"a": {"extend": "b"}}, r"policies.a: there is no policy 'b'"),
        ({"a": {"extend": "a"}}, "comes back to itself: a -> a"),
        ({"a": {"extend": "b"}, "b": {"extend": "a"}}, r"policies.b.extend: 'a' comes back to itself: a -> b -> a"),
        ({"a": {"allow": ["@nope"]}}, "policies.a: there is no preset @nope"),
        ({"a": {"deny": ["@nope"]}}, "policies.a: there is no preset @nope"),
        ({"a": {"allow": [""]}}, "policies.a: an empty name"),
        ({"a": {"workflows": [{"file": "x.json"}]}}, "policies.a: workflows: x.json could not be read"),
    ],
)
def test_mistakes_are_errors(policies: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_all("a", **policies)


def test_classes_of_pinned_workflows_are_permitted_unless_denied() -> None:
    documents = {"w.json": make_prompt()}
    policy = compile_all("a", documents, a={"workflows": [{"file": "w.json"}], "deny": ["VAE*"]})
    assert policy.permits("KSampler")
    assert not policy.permits("VAEDecode")
    assert not policy.permits("LoadImage")


def test_plans_are_kept_until_the_catalogue_changes() -> None:
    policy = compile_all("a", a={"allow": ["KSampler", "Ghost"]})
    plan = policy.plan_of("KSampler", CATALOGUE)
    assert plan is not None
    assert policy.plan_of("KSampler", CATALOGUE) is plan
    assert policy.plan_of("Secret", CATALOGUE) is None
    assert policy.plan_of("Ghost", CATALOGUE) is None
    renewed = read_catalogue(OBJECT_INFO)
    again = policy.plan_of("KSampler", renewed)
    assert again is not None
    assert again is not plan


def test_plans_of_several_catalogues_are_kept_side_by_side_until_one_is_gone() -> None:
    """Tenants of one policy may have different ones, and take turns."""
    policy = compile_all("a", a={"allow": ["KSampler"]})
    other = read_catalogue(OBJECT_INFO)
    plans = [policy.plan_of("KSampler", catalogue) for catalogue in (CATALOGUE, other)]
    assert plans[0] is not plans[1]
    assert [policy.plan_of("KSampler", catalogue) for catalogue in (CATALOGUE, other)] == plans
    assert policy.plan_of("KSampler", CATALOGUE) is plans[0]
    gone = ref(other)
    del other
    gc.collect()
    assert gone() is None
    policy.plan_of("KSampler", read_catalogue(OBJECT_INFO))
    assert len(policy._all_plans) == 2


def test_verdicts_on_names_of_clients_are_not_kept_for_ever() -> None:
    policy = compile_all("a", a={"allow": ["x*"]})
    for number in range(MAX_REMEMBERED + 10):
        assert policy.permits(f"x{number}")
    assert len(policy._verdicts) == MAX_REMEMBERED


def test_the_open_policy_permits_every_class() -> None:
    assert all(ADMIN_POLICY.permits(name) for name in OBJECT_INFO)


def test_a_chain_is_listed_from_the_policy_down() -> None:
    settings = {"a": PolicySettings(max_nodes=1), "b": PolicySettings(extend="a")}
    assert list_chain("b", settings) == [settings["b"], settings["a"]]


def test_a_policy_needs_no_more_than_limits() -> None:
    policy = Policy("p", allow=compile_patterns(["A"]), max_nodes=1, max_depth=1)
    assert policy.permits("A")
    assert policy.constraints.of("A", "x") == ()

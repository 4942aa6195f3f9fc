"""GET /object_info: what a tenant may run, and nothing else."""

from __future__ import annotations

import pytest

from policy.rules.described import describe_all, describe_one
from tests.policy.tenants import CATALOGUE, caller_of, request_of

ALICE = caller_of("alice")


def test_all_permitted_classes_are_described() -> None:
    shown = describe_all(request_of(ALICE))
    assert set(shown) == set(CATALOGUE.classes) - {"AddTextPrefix"}


@pytest.mark.parametrize("name", [*sorted(CATALOGUE.classes), "Gone"])
def test_one_class_is_described_as_among_all(name: str) -> None:
    shown = describe_one(request_of(ALICE, parameters={"node_class": name}))
    together = describe_all(request_of(ALICE))
    assert shown == ({name: together[name]} if name in together else {})

"""GET /object_info: what a tenant may run, and nothing else."""

from __future__ import annotations

from policy.routes import CachedReply
from policy.rules.described import describe_all, describe_one
from policy.table import TABLE
from tests.policy.tenants import CATALOGUE, caller_of, request_of

ALICE = caller_of("alice")


def test_all_permitted_classes_are_described() -> None:
    shown = describe_all(request_of(ALICE))
    assert set(shown) == set(CATALOGUE.classes) - {"AddTextPrefix"}


def test_one_class_is_picked_from_all() -> None:
    one, whole = (TABLE.match("GET", ("object_info", *more)) for more in (("Gone",), ()))
    assert one is not None
    assert whole is not None
    assert isinstance(one.route.tenant, CachedReply)
    assert one.route.tenant.picks in one.parameters
    assert isinstance(whole.route.tenant, CachedReply)
    assert whole.route.tenant.picks is None
    assert describe_one(request_of(ALICE)) == describe_all(request_of(ALICE))

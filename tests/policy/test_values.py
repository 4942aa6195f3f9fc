"""Values of a request are compared, kept in sets and replaced like frozen dataclasses; that nobody changes one is the type checker's to hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policy.call import ClientCall, ClientReply
from policy.values import value


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    number: int = 0


@value
class Made:
    name: str
    number: int = 0


def test_a_value_is_as_a_frozen_dataclass_is() -> None:
    for kind in (Frozen, Made):
        one = kind("a", 1)
        assert one == kind("a", 1) == replace(kind("b", 1), name="a")
        assert one != kind("a")
        assert {one, kind("a", 1)} == {one}
        assert repr(one).endswith("(name='a', number=1)")
        assert not hasattr(one, "__dict__")


def test_those_of_a_request_are_told_apart_by_what_they_hold() -> None:
    assert ClientCall("GET", ("a",)) == ClientCall("GET", ("a",), ()) != ClientCall("GET", ("b",))
    assert ClientReply(204) == ClientReply(204, b"")
    match ClientReply(404):
        case ClientReply(status=status):
            assert status == 404

from __future__ import annotations

import re

from policy.violation import Reason, Violation


def test_a_violation_carries_reason_words_and_nodes() -> None:
    nodes: dict[str, object] = {"3": {"errors": []}}
    violation = Violation(Reason.NOT_FOUND, "It is not here.", "details", node_errors=nodes)
    assert (violation.reason, violation.message, violation.details) == (Reason.NOT_FOUND, "It is not here.", "details")
    assert violation.node_errors == nodes
    assert violation.args == (Reason.NOT_FOUND, "It is not here.", "details")


def test_a_violation_has_no_nodes_unless_given() -> None:
    assert Violation(Reason.NOT_FOUND, "It is not here.").node_errors == {}


def test_codes_are_kebab_case_and_unique() -> None:
    codes = [reason.value for reason in Reason]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)

"""Every reason for a refusal is in docs/troubleshooting.md, and nothing there is made up."""

from __future__ import annotations

import re

from tests.docs.refusals import ROOT, node_codes, reasons_in_code

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
# ComfyUI's own shape for what is no refusal of the gate's.
OTHERS = {"upstream_busy", "upstream_error"}


def rows() -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([a-z0-9_-]+)`", cell)


def test_the_codes_are_found() -> None:
    assert {"rate-limited", "queue-full", "key-expired", "upstream-timeout", "route-unlisted"} <= reasons_in_code()
    assert {"credential-missing", "token-invalid", "gate-stopping", "request-malformed"} <= reasons_in_code()
    assert {"file-input-linked", "class-not-permitted"} <= node_codes()


def test_every_type_is_explained() -> None:
    explained = {code for row in rows() for code in codes(row[0])}

    assert {reason.replace("-", "_") for reason in reasons_in_code()} <= explained


def test_every_node_code_is_explained() -> None:
    explained = {code for row in rows() for code in codes(row[0])}

    assert node_codes() <= explained


def test_nothing_is_explained_that_is_never_answered() -> None:
    explained = {code for row in rows() for code in codes(row[0]) if "_" in code}

    assert explained - {reason.replace("-", "_") for reason in reasons_in_code()} == OTHERS


def test_every_row_says_what_to_do() -> None:
    for row in rows():
        if codes(row[0]) not in ([], ["type"]):
            assert len(row[-1]) > 10, row

"""What the document says of refusals is what proxy/http/errors.py gives."""

from __future__ import annotations

from policy.openapi.refusals import ALWAYS, CALLS, CHANGES, FOLLOWS, GIVES_FILE
from policy.violation import Reason, Violation
from proxy.http.errors import refusal_for
from tests.docs.refusals import ROOT

DOCUMENTED = ALWAYS | CALLS | CHANGES | FOLLOWS | GIVES_FILE
OF_OTHER_ROUTES = {
    "route-unlisted",
    "admins-only",
    "workflow-malformed",
    "body-malformed",
    "name-refused",
    "prompt-id-taken",
    "nowhere-to-run",
    "hash-mismatch",
    "asset-in-use",
    "metadata-invalid",
    "metadata-filter-invalid",
    "cursor-malformed",
    "missing-asset",
}
"""Or of status 400, whose types are not told one by one."""


def test_each_reason_stands_at_its_status() -> None:
    for reason in Reason:
        refusal = refusal_for(Violation(reason, "words"))
        assert refusal is not None
        told = {status for status, types in DOCUMENTED.types.items() if refusal.type in types}
        assert told <= {refusal.status}, f"{reason} is told of another status"
        if reason in OF_OTHER_ROUTES:
            continue
        assert refusal.status in DOCUMENTED.types
        assert not DOCUMENTED.types[refusal.status] or told == {refusal.status}, f"{reason} is not told"


def test_each_type_is_one_that_the_documentation_knows() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    known = {line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| `")}
    told = {each for types in DOCUMENTED.types.values() for each in types}
    assert told - known == {"asset_not_found"}, "a type of /api/v2"

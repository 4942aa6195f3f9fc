"""What each kind of route of a custom node becomes in the table."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import ClientReply, UpstreamReply
from policy.custom_routes import Kind, RouteSettings
from policy.principal import ALL_SCOPES, Principal, Role, Scope, TenantId
from policy.route_kinds import make_routes
from policy.routes import UNCHANGED, AdminOnly, Body, Budget, Caching, Deny, MultiCall, PassThrough, Rewrite, Route
from policy.violation import Reason, Violation
from tests.policy.custom_rows import row, table_of
from tests.policy.tenants import request_of

TENANT = Principal("key", TenantId("alice"))
ADMIN = Principal("key", TenantId("alice"), Role.ADMIN)
ID: dict[str, Any] = {"inputs": ["Load.id"]}
OF_EACH = {
    Kind.STATIC: row("/p/{file...}", "static"),
    Kind.SHARED_READ: row("/p/{folder}", "shared-read"),
    Kind.OWN_FILE: row("/p/view", "own-file"),
    Kind.OWN_ID: row("/p/{id}", "own-id", "GET", "PUT", **ID),
    Kind.OWN_JOB: row("/p/say", "own-job", "POST", classes=["C"]),
    Kind.ADMIN: row("/p/{rest...}", "admin", "GET", "POST"),
    Kind.NEVER: row("/p/never", "never", "GET", "POST", note="it is dangerous"),
}


def route(settings: RouteSettings, method: str = "GET") -> Route:
    return next(each for each in make_routes(settings, "pack p") if each.method == method)


@pytest.mark.parametrize("kind", Kind)
def test_a_row_says_where_it_comes_from(kind: Kind) -> None:
    for each in make_routes(OF_EACH[kind], "pack p"):
        assert (each.origin, each.kind, each.note) == ("pack p", kind.value, OF_EACH[kind].note)
    assert [each.method for each in make_routes(OF_EACH[kind], "")] == list(OF_EACH[kind].methods)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.ADMIN, Kind.NEVER)])
def test_tenants_may_and_admins_see_comfyui_as_it_is(kind: Kind) -> None:
    for each in make_routes(OF_EACH[kind], ""):
        assert isinstance(each.rule_for(TENANT), MultiCall if kind is Kind.OWN_JOB else Rewrite)
        assert each.rule_for(ADMIN) is UNCHANGED


def test_what_is_for_admins_is_refused_to_tenants_with_a_sentence() -> None:
    for each in make_routes(row("/p", "admin", "GET", "POST", note="it installs code"), ""):
        with pytest.raises(Violation, match="it installs code") as refused:
            each.rule_for(TENANT)
        assert refused.value.reason is Reason.ADMINS_ONLY
        assert isinstance(each.rule_for(ADMIN), PassThrough)
    assert isinstance(route(OF_EACH[Kind.ADMIN]).tenant, AdminOnly)
    assert (route(OF_EACH[Kind.ADMIN]).body, route(OF_EACH[Kind.ADMIN], "POST").body) == (Body.NONE, Body.STREAM)


def test_what_is_for_nobody_is_refused_to_admins_too() -> None:
    for who in (TENANT, ADMIN):
        with pytest.raises(Violation, match="it is dangerous") as refused:
            route(OF_EACH[Kind.NEVER], "POST").rule_for(who)
        assert refused.value.reason is Reason.ROUTE_REFUSED
    assert isinstance(route(row("/p", "never")).tenant, Deny)


def test_a_list_that_a_page_asks_for_may_be_an_empty_one() -> None:
    """The page goes on, and ComfyUI is not asked."""
    made = route(row("/p", "never", instead="[]"))
    for who in (TENANT, ADMIN):
        rule = made.rule_for(who)
        assert isinstance(rule, Rewrite)
        assert rule.request(request_of()) == ClientReply(body=b"[]")
    assert made.kind == "never"


def test_what_a_credential_needs() -> None:
    needs = {kind: {each.needs for each in make_routes(settings, "")} for kind, settings in OF_EACH.items()}
    assert needs[Kind.STATIC] == needs[Kind.SHARED_READ] == {Scope.CATALOG_READ}
    assert needs[Kind.OWN_FILE] == {Scope.FILES_READ}
    assert needs[Kind.OWN_ID] == {Scope.FILES_READ, Scope.FILES_WRITE}
    assert needs[Kind.OWN_JOB] == {Scope.JOBS_SUBMIT}
    narrow = Principal("key", TenantId("alice"), scopes=ALL_SCOPES - {Scope.FILES_WRITE})
    with pytest.raises(Violation):
        route(OF_EACH[Kind.OWN_ID], "PUT").rule_for(narrow)


def test_a_file_is_kept_and_counted_as_the_web_uis() -> None:
    made = route(OF_EACH[Kind.STATIC])
    assert (made.caching, made.budget) == (Caching.WEB_UI, Budget.WEB_UI)


def test_what_takes_work_is_counted_apart() -> None:
    call = request_of().call
    easy, heavy = route(row("/p", "shared-read")), route(row("/p", "shared-read", heavy=True))
    assert (easy.budget, heavy.budget) == (Budget.READ, Budget.PREVIEW)
    assert (easy.makes_picture(call), heavy.makes_picture(call)) == (False, True)
    easy, heavy = route(row("/p", "own-file")), route(row("/p", "own-file", heavy=True))
    assert (easy.budget, heavy.budget) == (Budget.READ, Budget.PREVIEW)
    assert (easy.is_heavy, heavy.is_heavy) == (False, True)


def test_bytes_are_counted_as_an_upload_and_bounded() -> None:
    made = route(row("/p/{id}", "own-id", "PUT", max_bytes="1MiB", **ID), "PUT")
    assert (made.budget, made.stores, made.max_stream_bytes) == (Budget.UPLOAD, True, 1024**2)


def test_an_answer_to_a_node_is_small_unless_the_row_says_otherwise() -> None:
    plain = route(row("/p", "own-job", "POST", classes=["C"]), "POST")
    form = route(row("/p", "own-job", "POST", classes=["C"], body="form", max_bytes="8MiB"), "POST")
    assert (plain.body, plain.max_json_bytes) == (Body.JSON, 1024**2)
    assert (form.body, form.max_json_bytes) == (Body.FORM, 8 * 1024**2)


@pytest.mark.parametrize(
    ("path", "doubled", "asked", "sent"),
    [
        ("/p/a", True, ("p", "a"), ("p", "a")),
        ("/p/a", True, ("api", "p", "a"), ("p", "a")),
        ("/p/a", False, ("api", "p", "a"), None),
        ("/api/p/a", True, ("api", "p", "a"), ("api", "p", "a")),
        ("/api/p/a", True, ("api", "api", "p", "a"), ("api", "p", "a")),
        ("/api/p/a", False, ("api", "api", "p", "a"), None),
        ("/api/p/a", True, ("p", "a"), None),
    ],
)
def test_a_route_is_served_as_comfyui_serves_it(
    path: str, doubled: bool, asked: tuple[str, ...], sent: tuple[str, ...] | None
) -> None:
    found = table_of(row(path, "static", doubled=doubled)).match("GET", asked)
    assert (found.segments if found else None) == sent


def test_a_name_may_hold_a_slash_where_models_are_read_and_nowhere_else() -> None:
    read, file = table_of(row("/p/{name}", "shared-read")), table_of(row("/p/{file...}", "static"))
    assert read.match("GET", ("p", "loras/a.png"))
    assert file.match("GET", ("p", "loras/a.png")) is None
    assert file.match("GET", ("p", "loras", "a.png"))


def test_answers_are_cleaned_and_pictures_pass() -> None:
    rule = route(OF_EACH[Kind.SHARED_READ]).tenant
    assert isinstance(rule, Rewrite)
    assert rule.clean is not None
    assert rule.clean.is_read("application/json")
    assert not rule.clean.is_read("image/png")
    reply = rule.clean.clean(UpstreamReply(200, ["/srv/x/a", "/p/a/b"], b""), request_of())
    assert reply.body == b'["a","/p/a/b"]'


def test_of_bytes_under_an_id_only_json_is_read() -> None:
    rule = route(OF_EACH[Kind.OWN_ID]).tenant
    assert isinstance(rule, Rewrite)
    assert rule.clean is not None
    assert rule.clean.is_read("Application/JSON; charset=utf-8")
    assert not rule.clean.is_read("application/octet-stream")

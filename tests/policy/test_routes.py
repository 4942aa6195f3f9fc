"""The route table: complete against ComfyUI's own lists, unambiguous, closed."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from policy import routes
from policy.principal import Principal, Role, Scope, TenantId
from policy.routes import AdminOnly, Body, Budget, Deny, PassThrough, Prefix, Route, RouteTable
from policy.table import ROUTES, TABLE
from policy.violation import Reason, Violation
from tests.policy.targets import examples
from tests.policy.tenants import caller_of, request_of

LISTS = sorted((Path(__file__).parent.parent / "data").glob("routes-*.txt"))


def segments(target: str) -> tuple[str, ...]:
    return tuple(part for part in target.split("/") if part)


def native_routes(file: Path) -> list[tuple[str, str]]:
    """Method and a call that the route answers, from a list dumped from ComfyUI's router."""
    calls = []
    for line in file.read_text(encoding="utf-8").splitlines():
        method, path = line.split(" ", 1)
        # "/*" is the catch-all that serves the web UI's folder: its files have rows of their own. "/api/" is an alias of "/" that
        # nothing asks for; an empty last segment is refused.
        if line.startswith("#") or path in ("/*", "/api/"):
            continue
        calls.append((method, re.sub(r"\{[^}]*\}", "example", path).replace("*", "some/file.js")))
    return calls


@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.stem)
def test_every_route_of_comfyui_has_a_row(file: Path) -> None:
    missing = [
        f"{method} {path}" for method, path in native_routes(file) if TABLE.match(method, segments(path)) is None
    ]
    assert not missing


def test_lists_are_there() -> None:
    assert [file.stem for file in LISTS] == ["routes-0.3.64", "routes-0.33.0"]


def test_no_two_rows_match_one_call() -> None:
    for route, other in itertools.permutations(ROUTES, 2):
        alone = RouteTable((other,))
        for target in examples(route):
            found = alone.match(route.method, segments(target))
            assert found is None or _is_literal_inside(route, other), (route.name, other.name)


def _is_literal_inside(route: Route, other: Route) -> bool:
    """No exception is known; a row that needs one says so here."""
    return False


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_row_matches_its_own_examples(route: Route) -> None:
    for target in examples(route):
        found = TABLE.match(route.method, segments(target))
        assert found is not None
        assert found.route is route


def test_prefix_is_the_one_used_upstream() -> None:
    for target in ("/prompt", "/api/prompt"):
        found = TABLE.match("GET", segments(target))
        assert found is not None
        assert found.segments == ("prompt",)
    for target in ("/api/jobs/7", "/api/api/jobs/7"):
        found = TABLE.match("GET", segments(target))
        assert found is not None
        assert (found.segments, found.parameters) == (("api", "jobs", "7"), {"job_id": "7"})


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("GET", ("jobs",)),
        ("GET", ("api", "api", "prompt")),
        ("GET", ("PROMPT",)),
        ("GET", ("prompt", "")),
        ("GET", ("api",)),
        ("GET", ("api", "internal", "logs")),
        ("GET", ("manager", "reboot")),
        ("GET", ("v2", "manager", "queue")),
        ("POST", ("view",)),
        ("DELETE", ("prompt",)),
        ("TRACE", ("prompt",)),
        ("GET", ("history", "a", "b")),
        ("GET", ("history", "a/b")),
        ("GET", ("userdata", "a", "b")),
        ("GET", ("assets",)),
        ("GET", ("assets", "a/b.js")),
    ],
)
def test_unlisted_is_nothing(method: str, parts: tuple[str, ...]) -> None:
    assert TABLE.match(method, parts) is None


def test_head_is_its_get() -> None:
    found = TABLE.match("HEAD", ("view",))
    assert found is not None
    assert found.route.name == "GET /view"
    assert TABLE.match("HEAD", ("upload", "image")) is None


@pytest.mark.parametrize(
    ("method", "raw", "segments", "name"),
    [
        ("GET", "/queue", ("queue",), "GET /queue"),
        ("HEAD", "/api/queue", ("queue",), "GET /queue"),
        ("GET", "/view?filename=a.png", ("view",), "GET /view"),
        ("GET", "/history/x%20y", ("history", "x y"), "GET /history/{prompt_id}"),
        ("GET", "/nowhere/at-all", ("nowhere", "at-all"), None),
    ],
)
def test_a_target_is_read_into_its_row(method: str, raw: str, segments: tuple[str, ...], name: str | None) -> None:
    for _ in range(2):  # it means the same when it comes again
        target = TABLE.read(method, raw)
        assert (target.route.name if target.route else None) == name
        assert (target.call.method, target.call.segments, target.call.query) == (method, segments, ())


def test_what_goes_on_of_a_query_is_the_calls() -> None:
    target = TABLE.read("GET", "/view?filename=a.png&token=x")
    assert target.query == (("filename", "a.png"), ("token", "x"))
    assert target.call_with(()) is target.call
    assert target.call_with(target.query[:1]).query == (("filename", "a.png"),)


def test_targets_that_hold_no_name_are_remembered_and_no_others() -> None:
    table = RouteTable(TABLE.routes)
    assert table.read("GET", "/queue") is table.read("GET", "/queue")
    for raw in ("/queue?a=1", "/history/x", "/nowhere"):
        assert table.read("GET", raw) is not table.read("GET", raw)


def test_so_many_targets_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_REMEMBERED", 2)
    table = RouteTable(TABLE.routes)
    for raw in ("/%71ueue", "/q%75eue", "/qu%65ue"):
        assert table.read("GET", raw).route is not None
    assert table.read("GET", "/%71ueue") is table.read("GET", "/%71ueue")
    assert table.read("GET", "/qu%65ue") is not table.read("GET", "/qu%65ue")


@pytest.mark.parametrize(
    ("segments", "methods"),
    [
        (("queue",), ("GET", "HEAD", "POST")),
        (("history", "x"), ("GET", "HEAD")),
        (("interrupt",), ("POST",)),
        (("assets", "index-abc.js"), ()),
        (("nowhere", "at-all"), ()),
    ],
)
def test_the_methods_of_a_path(segments: tuple[str, ...], methods: tuple[str, ...]) -> None:
    assert TABLE.methods(segments) == methods


def test_slashes_only_where_the_row_says_so() -> None:
    found = TABLE.match("GET", ("userdata", "workflows/a.json"))
    assert found is not None
    assert found.parameters == {"file": "workflows/a.json"}
    rest = TABLE.match("GET", ("extensions", "pack", "a", "b.js"))
    assert rest is not None
    assert rest.parameters == {"file": "pack/a/b.js"}
    assert TABLE.match("GET", ("models", "a/b")) is None


def principal(role: Role = Role.USER, scopes: frozenset[Scope] = frozenset(Scope)) -> Principal:
    return Principal("7f3a9c21", TenantId("acme"), role, scopes)


def row(**more: object) -> Route:
    fields: dict[str, object] = {
        "method": "GET",
        "path": "/x",
        "prefix": Prefix.BOTH,
        "needs": Scope.JOBS_READ,
        "tenant": PassThrough(),
    }
    return Route(**{**fields, **more})  # type: ignore[arg-type]


def test_rule_for_says_who_may() -> None:
    assert isinstance(row().rule_for(principal()), PassThrough)
    admins = row(tenant=AdminOnly("it is global"))
    assert isinstance(admins.rule_for(principal(Role.ADMIN)), PassThrough)
    with pytest.raises(Violation) as refused:
        admins.rule_for(principal())
    assert refused.value.reason is Reason.ADMINS_ONLY
    assert "it is global" in refused.value.message
    closed = row(tenant=Deny("it is dangerous"), admin=Deny("it is dangerous"))
    for role in Role:
        with pytest.raises(Violation) as forbidden:
            closed.rule_for(principal(role))
        assert forbidden.value.reason is Reason.ROUTE_REFUSED


@pytest.mark.parametrize("role", Role)
def test_scope_is_needed_by_admins_too(role: Role) -> None:
    with pytest.raises(Violation) as refused:
        row().rule_for(principal(role, frozenset({Scope.FILES_READ})))
    assert refused.value.reason is Reason.SCOPE_MISSING


def test_names_are_unique_labels() -> None:
    names = [route.name for route in ROUTES]
    assert len(names) == len(set(names))


def test_posts_that_carry_a_body_say_so() -> None:
    silent = {
        "POST /userdata/{file}/move/{dest}",
        "POST /api/jobs/{job_id}/cancel",
        "POST /api/v2/jobs/{job_id}/cancel",
        "POST /gate/jobs/{job_id}/cancel",
        "POST /api/assets/download",
    }
    without = {route.name for route in ROUTES if route.method == "POST" and route.body is Body.NONE}
    assert without <= silent


def test_examples_cover_every_prefix() -> None:
    assert list(examples(row(path="/a/{b}/{c...}"))) == ["/a/example/some/file.js", "/api/a/example/some/file.js"]


@pytest.mark.parametrize(
    ("path", "query", "budget"),
    [
        ("/view", {"filename": "x.png"}, Budget.READ),
        ("/view", {"filename": "x.png", "preview": "webp"}, Budget.PREVIEW),
        ("/upload/mask", {}, Budget.UPLOAD),
        ("/experiment/models/preview/checkpoints/0/a.safetensors", {}, Budget.PREVIEW),
        ("/queue", {}, Budget.POLL),
        ("/global_subgraphs/a", {}, Budget.WEB_UI),
    ],
)
def test_pictures_that_comfyui_makes_have_a_budget_of_their_own(
    path: str, query: dict[str, str], budget: Budget
) -> None:
    method = "POST" if path == "/upload/mask" else "GET"
    found = TABLE.match(method, tuple(path.strip("/").split("/")))
    assert found is not None
    route = found.route
    assert isinstance(route, Route)
    assert route.budget_for(request_of(caller_of("alice"), method=method, query=query).call) is budget
    assert route.makes_picture(request_of(caller_of("alice"), query=query).call) is (
        budget in (Budget.PREVIEW, Budget.UPLOAD)
    )


def test_a_row_says_whether_it_takes_a_body() -> None:
    submission, queue = TABLE.match("POST", ("prompt",)), TABLE.match("GET", ("queue",))
    assert submission is not None
    assert queue is not None
    assert [submission.route.has_body, queue.route.has_body] == [True, False]

"""Rows of custom nodes beside ComfyUI's own and beside each other."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from policy.custom_routes import Kind, PackSettings, RouteSettings
from policy.route_conflicts import find_conflicts
from policy.route_kinds import make_routes
from policy.routes import RouteTable
from policy.table import ROUTES
from proxy.config.packs import load_packs
from tests.policy.custom_rows import row

PACKS = load_packs()
PACK = PackSettings(
    title="p",
    repository="",
    folders=("p",),
    routes=(
        row("/p/list", "shared-read"),
        row("/p/secrets", "never", note="it shows secrets"),
        row("/p/install", "admin", "POST", note="it installs code"),
    ),
)


def conflicts(*rows: RouteSettings, chosen: tuple[str, ...] = (), packs: Any = None) -> list[tuple[int, str]]:
    return find_conflicts(rows, chosen, {"p": PACK} if packs is None else packs, ROUTES)


def words(*rows: RouteSettings, **more: Any) -> str:
    return "; ".join(text for _, text in conflicts(*rows, **more))


def test_what_meets_nothing_is_good() -> None:
    assert not conflicts(row("/x/list", "shared-read"), row("/x/files/{file...}", "static"), row("/p/other", "static"))


@pytest.mark.parametrize(
    ("path", "met"),
    [
        ("/view", "GET /view"),
        ("/api/view", "GET /view"),
        ("/userdata/{x}", "GET /userdata/{file}"),
        ("/extensions/pack/a.js", "GET /extensions/{file...}"),
        ("/queue", "GET /queue"),
        ("/prompt", "GET /prompt"),
        ("/jobs/{x}", "GET /api/jobs/{job_id}"),
    ],
)
def test_a_row_of_comfyuis_own_is_neither_met_nor_shadowed(path: str, met: str) -> None:
    assert met in words(row(path, "static"))
    assert met in words(row(path, "admin", "DELETE")), "by no other method either"


@pytest.mark.parametrize("path", ["/internal/{x...}", "/internal/{a}/{b}/{c}", "/view/{x}", "/api/jobs/{a}/{b}/{c}"])
def test_a_pattern_in_an_area_of_comfyuis_own_would_open_what_its_next_version_has_there(path: str) -> None:
    assert "ComfyUI's own" in words(row(path, "static"))


def test_single_paths_beside_comfyuis_own_and_patterns_further_down_are_good() -> None:
    assert not conflicts(row("/view/validate", "own-file"), row("/v2/manager/{x...}", "admin"), packs={})


def test_the_gates_own_paths_are_refused() -> None:
    assert "/gate/" in words(row("/gate/x", "static"))
    assert "/gate/" in words(row("/api/gate/x", "static"))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.NEVER])
def test_what_a_pack_keeps_closed_is_opened_by_no_row(kind: Kind) -> None:
    """Also when the pack is not chosen, and also by a pattern."""
    methods = ("POST",) if kind is Kind.OWN_JOB else ("GET",)
    more: dict[str, Any] = {"inputs": ["L.id"]} if kind is Kind.OWN_ID else {}
    more |= {"classes": ["C"]} if kind is Kind.OWN_JOB else {}
    closed = {"p": PACK.model_copy(update={"routes": (row("/p/a", "never", "GET", "POST", note="it shows secrets"),)})}
    for path in ("/p/{x}",) if kind is Kind.OWN_ID else ("/p/a", "/p/{x}", "/p/{x...}"):
        assert "it shows secrets" in words(row(path, kind, *methods, **more), packs=closed)


def test_what_is_for_admins_is_opened_to_nobody_else() -> None:
    assert "it installs code" in words(row("/p/install", "own-job", "POST", classes=["C"]))
    assert not conflicts(row("/p/install", "admin", "POST"))
    assert not conflicts(row("/p/install", "static")), "another method is another call"


def test_what_is_closed_may_be_closed_again() -> None:
    assert not conflicts(row("/p/secrets", "never"))


def test_a_row_that_a_chosen_pack_has_is_told() -> None:
    assert not conflicts(row("/p/list", "shared-read"))
    assert "the pack p has already" in words(row("/p/list", "shared-read"), chosen=("p",))
    assert not conflicts(row("/x", "static"), chosen=("p", "unknown"))


def test_rows_do_not_meet_each_other() -> None:
    assert conflicts(row("/x/{a}", "static"), row("/x/b", "shared-read")) == [(1, "/x/b meets /x/{a} of routes[0]")]
    assert not conflicts(row("/x/b", "own-job", "POST", classes=["C"]), row("/x/b", "static"))


@pytest.mark.parametrize("name", PACKS)
def test_a_shipped_pack_fits_beside_comfyui_and_itself(name: str) -> None:
    assert not find_conflicts(PACKS[name].routes, [], {}, ROUTES)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(PACKS, 2)))
def test_shipped_packs_fit_beside_each_other(one: str, other: str) -> None:
    assert not find_conflicts(PACKS[one].routes, [other], {other: PACKS[other]}, ())


def test_with_every_pack_each_call_has_one_row() -> None:
    made = [route for pack in PACKS.values() for settings in pack.routes for route in make_routes(settings, "")]
    table = RouteTable((*ROUTES, *made))
    for route in ROUTES:
        for pattern in route.patterns:
            found = table.match(route.method, tuple(part.strip("{}.") for part in pattern))
            assert found is None or found.route.origin in ("ComfyUI", "comfygate")

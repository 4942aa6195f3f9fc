"""Routes of custom nodes in the configuration: every way of being wrong has a sentence and its line, and nothing named means nothing opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.table import ROUTES, TABLE
from proxy.compiled_config import build_table, compile_config
from proxy.config import Config, ConfigError, load_config
from proxy.config.packs import load_packs

ROW = '\n[[routes]]\npath = "{path}"\nmethods = ["{method}"]\nkind = "{kind}"\n'


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, {})


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(folder, text)
    return [str(mistake) for mistake in refused.value.mistakes]


def row(path: str, kind: str = "static", method: str = "GET") -> str:
    return ROW.format(path=path, kind=kind, method=method)


def test_nothing_named_is_the_table_of_comfyui(tmp_path: Path) -> None:
    assert build_table(load(tmp_path, "")) is TABLE


def test_packs_and_single_rows_are_rows_of_one_table(tmp_path: Path) -> None:
    table = build_table(load(tmp_path, '[upstream]\npacks = ["kjnodes", "rgthree"]\n' + row("/x/{file...}")))
    assert table.routes[: len(ROUTES)] == ROUTES
    origins = {route.origin for route in table.routes[len(ROUTES) :]}
    assert origins == {"pack kjnodes", "pack rgthree", "routes[0]"}
    for method, path in (("GET", "kjweb_async/a.js"), ("GET", "x/a/b"), ("HEAD", "rgthree/config.js")):
        assert table.match(method, tuple(path.split("/")))
    assert table.match("GET", ("vhs", "viewvideo")) is None


def test_every_pack_may_be_named(tmp_path: Path) -> None:
    names = ", ".join(f'"{name}"' for name in load_packs())
    assert len(build_table(load(tmp_path, f"[upstream]\npacks = [{names}]\n")).routes) > 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[upstream]\npacks = ["rgtree"]\n', "line 2: upstream.packs: there is no pack 'rgtree': there are autocomplete-plus"),
        ('[upstream]\npacks = ["vhs", "vhs"]\n', "line 2: upstream.packs: the pack vhs is named twice"),
        (row("/x").replace("static", "open"), "line 5: routes[0].kind: "),
        (row("/x").replace("GET", "BREW"), "line 4: routes[0].methods[0]: "),
        (row("x"), 'line 3: routes[0].path: write a path from the root, such as "/pack/list"'),
        (row("/x/*"), "line 3: routes[0].path: write {name} for one segment"),
        (row("/x/../y"), "line 3: routes[0].path: empty, '.' and '..' segments are not accepted in a path"),
        (row("/x/.git"), "line 3: routes[0].path: '.git' begins with a dot"),
        (row("/view"), "line 3: routes[0].path: /view meets GET /view, a route of ComfyUI's own"),
        (row("/internal/{x...}"), "line 3: routes[0].path: /internal/{x...} meets GET /internal/files/{directory_type}"),
        (row("/gate/x"), "line 3: routes[0].path: paths under /gate/ are the gate's own"),
        (row("/x") + row("/x"), "line 8: routes[1].path: /x meets /x of routes[0]"),
        (row("/vhs/getpath"), "line 3: routes[0].path: /vhs/getpath meets /vhs/getpath of the pack vhs, which is opened to nobody: it lists"),
        (row("/vhs/{x...}", "admin"), "meets /vhs/getpath of the pack vhs, which is opened to nobody"),
        (row("/easyuse/{x...}"), "which is for admins: "),
        ('[upstream]\npacks = ["kjnodes"]\n' + row("/kjweb_async/a.js"), "which the pack kjnodes has already"),
        ("\n[[routes]]\npath = \"/x\"\n", "routes[0].methods: is missing"),
        (row("/x") + 'colour = "red"\n', "line 6: routes[0].colour: unknown key"),
        ('[upstream]\npacks = "vhs"\n', "line 2: upstream.packs: "),
    ],
)  # fmt: skip
def test_each_mistake_has_a_sentence_and_a_line(tmp_path: Path, text: str, words: str) -> None:
    found = mistakes(tmp_path, text)
    assert [line for line in found if words in line], found


def test_mistakes_are_told_all_at_once(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[upstream]\npacks = ["rgtree", "vhs", "vhs"]\n' + row("/view") + row("/queue"))
    assert len(found) >= 4


def test_nodes_of_packs_that_are_not_named_read_the_tenants_own_ids_too(tmp_path: Path) -> None:
    """A policy may permit the node, and its ids are filled by other ways than the route."""
    config = load(tmp_path, row("/x/{id}", "own-id", "PUT") + 'inputs = ["Other.key"]\n')
    assert compile_config(config).id_inputs == {
        "ETN_LoadImageCache": {"id"},
        "Other": {"key"},
    }

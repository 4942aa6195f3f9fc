"""config.toml, the shipped example: every setting is in it, with a comment, and what is not commented out is the default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from policy.sizes import parse_size
from proxy.config import Config, load_config
from proxy.config.reader import ENVIRONMENT
from proxy.config.units import parse_duration
from tools.docs import ROOT, configuration_page
from tools.settings import ANY, MUST, Setting, read_comments, sections_of

TEXT = (ROOT / "config.toml").read_text(encoding="utf-8")
COMMENTS = read_comments(TEXT)
SETTINGS = [setting for section in sections_of(Config) for setting in section.settings]
# What a tenant may run has no default: nothing. The example has something, so that it shows how.
EXAMPLES = {("policies", "allow"), ("policies", "inputs"), ("policies", "deny"), ("policies", "budgets")}


def name_of(setting: Setting) -> str:
    return ".".join((*setting.path, setting.name))


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_setting_stands_there_with_a_comment(setting: Setting) -> None:
    assert COMMENTS.of_setting(setting.path, setting.name), "add it to config.toml, with a comment behind it"


def test_nothing_else_stands_there() -> None:
    known = {(setting.path, setting.name) for setting in SETTINGS}
    free = {("policies", ANY, "inputs"), ("policies", ANY, "budgets")}  # inputs and budgets have names of their own

    assert {found for found in COMMENTS.settings if found[0] not in free} <= known


def _written(path: tuple[str, ...]) -> list[dict[str, Any]]:
    """The tables that the file has for a section, commented-out ones left out."""
    found: list[Any] = [tomllib.loads(TEXT)]
    for part in path:
        found = [
            inner
            for table in found
            for name, inner in table.items()
            if isinstance(inner, dict) and name != "logins" and part in (ANY, name)
        ] or [table[part] for table in found if isinstance(table.get(part), dict)]
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_what_is_not_commented_out_is_the_default(setting: Setting) -> None:
    if (setting.path[0], setting.name) in EXAMPLES:
        return
    written = [table[setting.name] for table in _written(setting.path) if setting.name in table]

    for value in written:
        assert setting.default != MUST
        expected = tomllib.loads(f"value = {setting.default}")["value"] if setting.default else type(value)()
        assert _plain(value, setting.kind) == _plain(expected, setting.kind)


def _plain(value: Any, kind: str) -> Any:
    """1024 and "1KiB" are one size."""
    if kind.startswith("size"):
        return parse_size(value or 0)
    return parse_duration(value or 0) if kind.startswith("duration") else value


def test_it_is_loaded() -> None:
    config = load_config(ROOT / "config.toml", {})

    assert config.server.host == config.ops.host == "127.0.0.1"
    assert not config.keys
    assert set(config.tenants) == {"acme"}


def test_it_is_loaded_with_several_comfyuis_as_their_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "several.md").read_text(encoding="utf-8")
    told = re.search(r"in the place of the lines (.*?) of `\[upstream\]`:\n\n```toml\n(.*?)```", page, re.DOTALL)
    assert told is not None
    before, head, upstream = TEXT.partition("[upstream]")
    for name in re.findall(r"`(\w+)`", told[1]):
        upstream = re.sub(rf"(?m)^{name} = .*\n", "", upstream, count=1)
    file = tmp_path / "config.toml"
    file.write_text(f"{before}{head}{upstream}\n{told[2]}", encoding="utf-8")
    assert [each.name for each in load_config(file, {}).comfyui] == ["gpu-1", "gpu-2"]


def test_the_page_has_every_setting_and_variable() -> None:
    page = configuration_page(TEXT)

    for setting in SETTINGS:
        assert f"| `{setting.name}` |" in page
    for variable in ENVIRONMENT:
        assert f"`{variable}`" in page


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        ('name = "a # b" # what it is', "what it is"),
        ("# name = 'it' # an example", "an example"),
        ("name = 3", ""),
        ('name = ["a", "#b"] # more', "more"),
    ],
)
def test_comments_are_found_behind_values(line: str, comment: str) -> None:
    assert read_comments(f"[server]\n{line}").of_setting(("server",), "name") == comment

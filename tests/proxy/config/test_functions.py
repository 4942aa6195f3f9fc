"""Functions beside the configuration file: every mistake with the file that it is in, all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.compiled_config import compile_config
from proxy.config import ConfigError, load_config
from proxy.config import functions as reading
from proxy.config.functions import read_functions

GRAPH = {"1": {"class_type": "X", "inputs": {"text": "", "number": 1}}}
GOOD = '[parameters.text]\ntype = "text"\nfills = ["1.text"]\n'


def write(folder: Path, name: str, settings: str = GOOD, graph: Any = GRAPH) -> Path:
    (folder / "functions").mkdir(exist_ok=True)
    (folder / "functions" / f"{name}.toml").write_text(settings, encoding="utf-8")
    (folder / "functions" / f"{name}.json").write_bytes(graph if isinstance(graph, bytes) else orjson.dumps(graph))
    return folder / "functions"


def words(folder: Path) -> list[str]:
    functions, mistakes = read_functions(folder / "functions")
    assert not functions
    return [f"{file}: {text}" for file, text in mistakes]


def test_no_folder_holds_none(tmp_path: Path) -> None:
    assert read_functions(tmp_path / "functions") == ({}, [])


def test_a_function_and_one_as_the_web_ui_sends_it(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b", "\ufeff" + GOOD, {"prompt": GRAPH, "client_id": "x"})
    write(tmp_path, "c", f'workflow = "a.json"\n{GOOD}', b"")
    functions, mistakes = read_functions(tmp_path / "functions")
    assert (list(functions), mistakes) == (["a", "b", "c"], [])
    assert functions["a"].graph == functions["b"].graph == functions["c"].graph == GRAPH


@pytest.mark.parametrize(
    ("settings", "graph", "rule"),
    [
        ("nonsense", GRAPH, "a.toml: it is not TOML"),
        (GOOD + 'deflaut = "x"', GRAPH, "a.toml: parameters.text.deflaut: unknown key"),
        ("titel = 1", GRAPH, "a.toml: titel: unknown key"),
        (
            '[parameters.text]\ntype = "text"\nfills = ["1"]',
            GRAPH,
            "a.toml: parameters.text.fills: '1' is not an input",
        ),
        (GOOD, b"{", "a.toml: a.json is not JSON"),
        (GOOD, [], "a.toml: the workflow is not in the API format"),
        ('workflow = "none.json"', GRAPH, "a.toml: none.json cannot be read: No such file"),
        ('[outputs.x]\nnode = "9"', GRAPH, "a.toml: outputs.x: the workflow has no node 9"),
    ],
)
def test_each_way_of_being_wrong(tmp_path: Path, settings: str, graph: Any, rule: str) -> None:
    write(tmp_path, "a", settings, graph)
    found = words(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"functions/{rule}")


def test_all_mistakes_of_all_files(tmp_path: Path) -> None:
    write(tmp_path, "a", '[parameters.x]\ntype = "text"\nfills = ["8.x", "9.x"]')
    write(tmp_path, "b", "nonsense")
    (tmp_path / "functions" / "c.toml").write_bytes(b"\xff")
    write(tmp_path, "D")
    assert [line.partition(":")[0] for line in words(tmp_path)] == [
        "functions/D.toml",
        *["functions/a.toml"] * 2,
        "functions/b.toml",
        "functions/c.toml",
    ]


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1024**2)
    write(tmp_path, "a", graph=b" " * (1024**2 + 1))
    assert words(tmp_path) == ["functions/a.toml: a.json is larger than 1 MiB"]


def test_tenants_and_functions_name_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "a", 'policy = "none"\n' + GOOD)
    write(tmp_path, "broken", "nonsense")
    file = tmp_path / "config.toml"
    file.write_text(
        '[tenants.alice]\nfunctions = ["a", "nothing", "broken"]\n[tenants.bob]\nfunctions = ["*"]\n', encoding="utf-8"
    )
    with pytest.raises(ConfigError) as wrong:
        compile_config(load_config(file, {}))
    found = [str(mistake) for mistake in wrong.value.mistakes]
    assert [line for line in found if "nothing" in line] == [
        line for line in found if line.startswith("tenants.alice.functions")
    ]
    assert any("functions/a.toml" in line and "[policies.none]" in line for line in found)
    assert sum("broken" in line for line in found) == 1, "once, where it is"


def test_a_function_asks_for_labels_that_a_comfyui_has(tmp_path: Path) -> None:
    write(tmp_path, "a", 'labels = ["24gb", "fast"]\n' + GOOD)
    file = tmp_path / "config.toml"
    file.write_text("", encoding="utf-8")
    assert compile_config(load_config(file, {})).functions["a"].settings.labels == ("24gb", "fast"), "of one no label"
    file.write_text('[[comfyui]]\nname = "a"\nlabels = ["fast"]\n', encoding="utf-8")
    with pytest.raises(ConfigError) as wrong:
        compile_config(load_config(file, {}))
    [mistake] = wrong.value.mistakes
    assert str(mistake) == "functions/a.toml: labels: no [[comfyui]] has the label 24gb"

"""`warmup`: functions that run by themselves after a ComfyUI was restarted."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.compiled_config import compile_config
from proxy.config import ConfigError, load_config

GRAPH = '{"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}, "2": {"class_type": "X", "inputs": {}}}'
NEEDING = '[parameters.width]\ntype = "integer"\nfills = ["1.width"]\n'


def compiled(folder: Path, text: str) -> list[str]:
    """The mistakes, as they are told."""
    (folder / "functions").mkdir()
    for name, more in (("portrait", ""), ("needing", NEEDING), ("large", 'labels = ["24gb"]\n')):
        (folder / "functions" / f"{name}.toml").write_text(f'workflow = "graph.json"\n{more}')
    (folder / "functions" / "graph.json").write_text(GRAPH)
    file = folder / "config.toml"
    file.write_text(text)
    try:
        compile_config(load_config(file, {}))
    except ConfigError as error:
        return list(map(str, error.mistakes))
    return []


TWO = '[[comfyui]]\nname = "a"\nlabels = ["24gb"]\nwarmup = ["{a}"]\n[[comfyui]]\nname = "b"\nurl = "http://b:1"\nwarmup = ["{b}"]\n'


@pytest.mark.parametrize(
    "text",
    [
        '[upstream]\nwarmup = ["portrait", "large"]\n',
        TWO.format(a="large", b="portrait"),
    ],
)
def test_good_ones(tmp_path: Path, text: str) -> None:
    assert compiled(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[upstream]\nwarmup = ["ghost"]\n', "upstream.warmup: there is no functions/ghost.toml"),
        ('[upstream]\nwarmup = ["needing"]\n', "upstream.warmup: needing does not run by itself: its parameter width"),
        (TWO.format(a="portrait", b="ghost"), "comfyui[1].warmup: there is no functions/ghost.toml"),
        (TWO.format(a="needing", b="portrait"), "comfyui[0].warmup: needing does not run by itself"),
        (TWO.format(a="large", b="large"), "comfyui[1].warmup: large runs where the label 24gb is"),
        ('[upstream]\nwarmup = []\n[[comfyui]]\nname = "a"\n', "upstream.warmup: is given for each ComfyUI"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    [mistake] = compiled(tmp_path, text)
    assert words in mistake

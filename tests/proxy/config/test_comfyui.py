"""`[[comfyui]]`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError
from proxy.config.comfyui import ComfyUISettings
from proxy.config.reader import Config, check_config
from proxy.config.restart import OF_COMFYUI, need_restart

FILE = Path("/etc/comfygate/config.toml")
TWO: list[dict[str, Any]] = [
    {"name": "gpu-1", "url": "http://127.0.0.1:8188/", "directory": "one"},
    {"name": "gpu-2", "url": "http://127.0.0.1:8288", "window": 4},
]


def read(document: dict[str, Any]) -> Config:
    return check_config(document, FILE)


def mistakes(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read(document)
    return [str(each) for each in error.value.mistakes]


def test_upstream_means_one_of_them() -> None:
    config = read({"upstream": {"url": "http://127.0.0.1:9000"}})
    [only] = config.comfyuis
    assert (only.name, only.url, only.directory) == ("default", "http://127.0.0.1:9000", None)
    assert config.window_of(only) == config.jobs.window


def test_the_first_has_the_place_of_upstream() -> None:
    config = read({"comfyui": TWO, "upstream": {"connect_timeout": 2}})
    assert [each.name for each in config.comfyuis] == ["gpu-1", "gpu-2"]
    assert (config.upstream.url, config.upstream.directory) == ("http://127.0.0.1:8188", Path("one"))
    assert config.upstream.connect_timeout == 2
    assert [config.window_of(each) for each in config.comfyuis] == [2, 4]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"comfyui": [*TWO, {"name": "gpu-1", "url": "http://a:1"}]},
            "comfyui[2].name: two ComfyUIs have the name gpu-1",
        ),
        (
            {"comfyui": [*TWO, {"name": "x", "url": "http://127.0.0.1:8188"}]},
            "comfyui[2].url: two ComfyUIs have the url",
        ),
        ({"comfyui": TWO, "upstream": {"url": "http://a:1"}}, "upstream.url: is given for each ComfyUI in [[comfyui]]"),
        ({"comfyui": [{"name": "GPU"}]}, "comfyui[0].name: write a name"),
        ({"comfyui": [{"name": "a", "tenants": ["nobody"]}]}, "comfyui[0].tenants: there is no [tenants.nobody]"),
        ({"comfyui": [{"name": "a", "url": "https://a"}]}, "comfyui[0].url: write ComfyUI's address"),
        ({"comfyui": TWO, "limits": {"default": {"storage": "1GB"}}}, "needs directory of each ComfyUI"),
    ],
)
def test_what_does_not_fit_is_told(document: dict[str, Any], message: str) -> None:
    assert [each for each in mistakes(document) if message in each]


THREE: list[dict[str, Any]] = [*TWO, {"name": "gpu-3", "url": "http://127.0.0.1:8388"}]


@pytest.mark.parametrize("others", [TWO, THREE, TWO[:1], [TWO[0], TWO[1] | {"name": "other"}], [TWO[0], *THREE[:0:-1]]])
def test_other_comfyuis_are_taken_up_at_once(others: list[dict[str, Any]]) -> None:
    assert need_restart(read({"comfyui": TWO}), read({"comfyui": others})) == []


FIRST_STAYS = "comfyui (the first one, gpu-1, has the tenants' uploads, saved workflows and settings)"


@pytest.mark.parametrize("others", [TWO[::-1], TWO[1:], []])
def test_another_first_one_is_taken_up_at_a_restart(others: list[dict[str, Any]]) -> None:
    before, after = read({"comfyui": TWO}), read({"comfyui": others})
    assert need_restart(before, after) == [FIRST_STAYS]
    assert need_restart(after, after, before) == [], "it was said"
    if others:
        still = read({"comfyui": [*others, THREE[2]]})
        assert need_restart(after, still, before) == [FIRST_STAYS], "and is again, where something else is not taken up"
        assert need_restart(after, before, before) == []


def test_a_name_for_the_only_one_is_taken_up_at_a_restart() -> None:
    [told] = need_restart(read({"upstream": {"url": "http://127.0.0.1:8188"}}), read({"comfyui": TWO}))
    assert told.startswith("comfyui (a gate that was started with one ComfyUI and no name for it ")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, []),
        ({"window": 7, "weight": 3.0, "labels": ["24gb"], "tenants": ["alice"], "warmup": ["portrait"]}, []),
        ({"gone_after": "5s"}, []),
        ({"url": "http://127.0.0.1:9"}, ["url"]),
        ({"directory": "elsewhere"}, ["directory"]),
        ({"shared_directory": True, "window": 1}, ["shared_directory"]),
    ],
)
@pytest.mark.parametrize("index", [0, 1])
def test_of_the_first_what_is_opened_at_the_start_is_taken_up_at_a_restart(
    change: dict[str, Any], named: list[str], index: int
) -> None:
    changed = [each | change if number == index else each for number, each in enumerate(TWO)]
    before, after = (read({"comfyui": each, "tenants": {"alice": {}}}) for each in (TWO, changed))
    assert need_restart(before, after) == [f"comfyui.gpu-1.{name}" for name in named if index == 0]


def test_settings_of_comfyuis_that_need_a_restart_exist() -> None:
    taken_up = {"window", "weight", "labels", "tenants", "warmup", "gone_after"}
    assert set(ComfyUISettings.model_fields) == {"name", *OF_COMFYUI, *taken_up}, "which of the two is the new one?"

"""`[[comfyui]]`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError
from proxy.config.reader import Config, check_config
from proxy.config.restart import need_restart

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


def test_other_comfyuis_are_taken_up_at_a_restart() -> None:
    one, two = read({"comfyui": TWO}), read({"comfyui": TWO[:1]})
    assert need_restart(one, two) == ["comfyui"]
    assert need_restart(one, one) == []

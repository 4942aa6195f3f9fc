"""What the shipped policies let through and what they do not: an ordinary picture passes, one that takes all memory does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policy.catalogue import Catalogue, read_catalogue
from policy.violation import Violation
from proxy.compiled_config import compile_policies
from proxy.config import load_config
from tests.docs.refusals import ROOT
from tests.policy.graphs import run

SHIPPED = [ROOT / "config.toml", ROOT / "deploy" / "docker" / "config.toml"]


def size(maximum: int = 16384) -> list[Any]:
    return ["INT", {"default": 512, "min": 16, "max": maximum}]


def node_class(required: dict[str, Any], output: str) -> dict[str, Any]:
    return {"input": {"required": required}, "output": [output], "output_node": False, "python_module": "nodes"}


CATALOGUE: Catalogue = read_catalogue(
    {
        "EmptyLatentImage": node_class({"width": size(), "height": size(), "batch_size": size(4096)}, "LATENT"),
        "ImageScale": node_class({"width": size(), "height": size()}, "IMAGE"),
        "BasicScheduler": node_class({"steps": size(10000)}, "SIGMAS"),
    }
)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
@pytest.mark.parametrize(
    ("class_type", "inputs", "code"),
    [
        ("EmptyLatentImage", {"width": 1024, "height": 1024, "batch_size": 4}, None),
        ("EmptyLatentImage", {"width": 4096, "height": 4096, "batch_size": 1}, None),
        ("EmptyLatentImage", {"width": 16384, "height": 16384, "batch_size": 1}, "budget-exceeded"),
        ("EmptyLatentImage", {"width": 4096, "height": 4096, "batch_size": 2}, "budget-exceeded"),
        ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 4096}, "value-too-large"),
        ("ImageScale", {"width": 16384, "height": 16384}, "budget-exceeded"),
        ("ImageScale", {"width": 1920, "height": 1080}, None),
        ("BasicScheduler", {"steps": 30}, None),
        ("BasicScheduler", {"steps": 10000}, "value-too-large"),
    ],
)
def test_pictures_and_steps_are_bounded(file: Path, class_type: str, inputs: dict[str, Any], code: str | None) -> None:
    policy = compile_policies(load_config(file, {}))["default"]
    prompt = {"1": {"class_type": class_type, "inputs": inputs}}
    if code is None:
        assert run(prompt, policy, CATALOGUE).nodes
        return
    with pytest.raises(Violation) as refused:
        run(prompt, policy, CATALOGUE)
    assert code in {error["type"] for error in refused.value.node_errors["1"]["errors"]}

from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.catalogue import read_catalogue
from policy.functions.function import Function, make_function
from policy.functions.settings import FunctionSettings
from policy.rules.prompt import LAST_PLACE
from policy.violation import Violation
from policy.warmup import CLIENT, PLACE, folder_of, is_warmup, make_warmup, missing_argument
from proxy.jobs.registry import owner_of_client
from tests.policy.tenants import IN_CUSTOM, OBJECT_INFO, node

CATALOGUE = read_catalogue(
    OBJECT_INFO
    | {
        "CheckpointLoaderSimple": node({"ckpt_name": [["a.safetensors", "b.ckpt", "none"]]}, ["MODEL"]),
        "Sample": node({"model": ["MODEL"], "seed": ["INT"], "text": ["STRING"]}, ["IMAGE"]),
        "PackSave": node({"images": ["IMAGE"], "output_dir": ["STRING", {}]}, output_node=True, **IN_CUSTOM),
    }
)
GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "2": {"class_type": "Sample", "inputs": {"model": ["1", 0], "seed": 7, "text": "?"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "../tenants/alice/x"}},
    "4": {"class_type": "PackSave", "inputs": {"images": ["2", 0], "output_dir": "anywhere"}},
}
PARAMETERS: dict[str, Any] = {
    "text": {"type": "text", "default": "a cat", "fills": ["2.text"]},
    "seed": {"type": "seed", "min": 3, "fills": ["2.seed"]},
}


def function(graph: Any = GRAPH, **parameters: Any) -> Function:
    return make_function("portrait", FunctionSettings.model_validate({"parameters": PARAMETERS | parameters}), graph)


def test_it_runs_with_its_defaults_and_saves_in_a_folder_of_its_own() -> None:
    made = make_warmup(function(), CATALOGUE, folder_of("gpu-1"))
    document = orjson.loads(made.body)
    inputs = {node_id: each["inputs"] for node_id, each in document["prompt"].items()}
    assert inputs["2"] == {"model": ["1", 0], "seed": 3, "text": "a cat"}
    assert inputs["3"]["filename_prefix"] == "comfygate-warmup-gpu-1/portrait"
    assert inputs["4"]["output_dir"] == "comfygate-warmup-gpu-1"
    assert (document["client_id"], document["extra_data"]) == (CLIENT, {"client_id": CLIENT})
    assert made.models == ("a.safetensors",)
    assert make_warmup(function(), CATALOGUE, folder_of("gpu-1")) == made, "the same each time"
    assert GRAPH["3"]["inputs"]["filename_prefix"] == "../tenants/alice/x"


def test_it_is_nobodys_and_comes_behind_all_jobs() -> None:
    assert owner_of_client(CLIENT) is None
    assert PLACE < LAST_PLACE
    assert float(PLACE) != LAST_PLACE


def test_what_lacks_an_argument_does_not_run_by_itself() -> None:
    assert missing_argument(function()) == ""
    lacking = function(picture={"type": "text", "fills": ["1.ckpt_name"]})
    assert missing_argument(lacking) == "picture"
    with pytest.raises(Violation):
        make_warmup(lacking, CATALOGUE, "x")


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(Violation):
        make_warmup(function({"2": {"class_type": "Gone", "inputs": {"seed": 1, "text": ""}}}), CATALOGUE, "x")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"prompt": [1.0, "id", {}, {"client_id": CLIENT}, []]}, True),
        ({"prompt": [1.0, "id", {}, {"client_id": "alice.tab"}, []]}, False),
        ({"prompt": [1.0, "id", {}, {}, []]}, False),
        ({"prompt": [1.0, "id", {}, None, []]}, False),
        ({"prompt": [1.0]}, False),
        ({"prompt": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_which_entries_are_warmups(entry: Any, expected: bool) -> None:
    assert is_warmup(entry) is expected

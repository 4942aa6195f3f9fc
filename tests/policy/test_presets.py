"""The presets as data: each class of ComfyUI stands in one place, and the dangerous ones in none of the presets."""

from __future__ import annotations

import copy
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.catalogue import read_catalogue
from proxy.config.presets import (
    NAMES,
    load_excluded,
    load_groups,
    load_presets,
    load_unclassified,
    read_text,
)
from tools.presets import describe, file_new, find_gone, find_new, main

DATA = Path(__file__).parents[1] / "data" / "object_info_names.json"
MODULES: dict[str, list[str]] = orjson.loads(DATA.read_bytes())
FILES = (*NAMES, "excluded", "unclassified")


def test_every_class_of_comfyui_stands_in_exactly_one_place() -> None:
    places = Counter(name for preset in load_presets().values() for name in preset)
    places.update(load_excluded().keys())
    places.update(load_unclassified())
    known = {name for names in MODULES.values() for name in names}
    assert len(known) > 800
    assert {name for name in known if places[name] != 1} == set()
    assert [name for name, count in places.items() if count > 1] == []


def test_no_list_names_a_class_twice() -> None:
    for name in (*NAMES, "unclassified"):
        counts = Counter(member for group in load_groups(name).values() for member in group)
        assert [member for member, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", FILES)
def test_every_group_has_a_comment(name: str) -> None:
    text = read_text(name)
    assert text.startswith("# ")
    for group in tomllib.loads(text):
        head = re.escape(group)
        assert re.search(rf"^# .+\n(?:\[{head}\]|{head} = )", text, re.MULTILINE), group


def test_every_exclusion_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in load_excluded().values())


DANGEROUS = [
    "RegexMatch",
    "RegexExtract",
    "RegexReplace",
    "StringFormat",
    "GLSLShader",
    "PreviewAny",
    "JsonExtractString",
    "SaveImageDataSetToFolder",
    "SaveImageTextDataSetToFolder",
    "LoadImageDataSetFromFolder",
    "LoadTrainingDataset",
    "SaveTrainingDataset",
    "TrainLoraNode",
    "CheckpointSave",
    "CLIPSave",
    "VAESave",
    "ModelSave",
    "ImageOnlyCheckpointSave",
    "LoraSave",
    "SaveLoRA",
    "Load3D",
    "Preview3D",
    "GeminiInputFiles",
    "OpenAIInputFiles",
]


def test_dangerous_classes_stand_in_no_preset() -> None:
    everything = frozenset[str]().union(*load_presets().values())
    assert everything.isdisjoint(DANGEROUS)
    assert set(DANGEROUS) <= set(load_excluded())


def test_nodes_of_paid_services_stand_in_their_own_preset_only() -> None:
    remote = {name for module, names in MODULES.items() if module.startswith("comfy_api_nodes") for name in names}
    for preset, names in load_presets().items():
        if preset != "api-nodes":
            assert names.isdisjoint(remote)
    local = {name for module, names in MODULES.items() if not module.startswith("comfy_api_nodes") for name in names}
    assert load_presets()["api-nodes"].isdisjoint(local)


def test_the_usual_classes_are_there() -> None:
    usual = {"KSampler", "CheckpointLoaderSimple", "CLIPTextEncode", "VAEDecode", "SaveImage", "LoadImage"}
    assert usual <= load_presets()["core-image"]


def make_object_info(**extra: Any) -> dict[str, Any]:
    entry = {"input": {"required": {}}, "output": []}
    info = {
        name: copy.deepcopy(entry) | {"python_module": module} for module, names in MODULES.items() for name in names
    }
    return info | extra


NEW = {
    "NewSampler": {"input": {"required": {}}, "python_module": "comfy_extras.nodes_custom_sampler"},
    "NewPaid": {
        "input": {"required": {}, "hidden": {"auth_token_comfy_org": ["AUTH_TOKEN_COMFY_ORG"]}},
        "python_module": "comfy_api_nodes.nodes_kling",
    },
    "NewHelper": {"input": {"required": {}}, "python_module": "comfy_api_nodes.nodes_fresh"},
    "NewOdd": {
        "input": {"required": {"file_path": ["STRING"], "image": ["COMBO", {"image_upload": True}]}},
        "python_module": "comfy_extras.nodes_odd",
        "output_node": True,
    },
    "Foreign": {"input": {"required": {}}, "python_module": "custom_nodes.foreign"},
}


def test_new_classes_are_found_with_what_to_look_at() -> None:
    new = {item.name: item for item in find_new(read_catalogue(make_object_info(**NEW)))}
    assert set(new) == {"NewSampler", "NewPaid", "NewHelper", "NewOdd"}
    assert new["NewSampler"].suggestion == "core-image"
    assert new["NewPaid"].suggestion == new["NewHelper"].suggestion == "api-nodes"
    assert new["NewPaid"].marks == ("calls a paid service",)
    assert new["NewOdd"].suggestion == "unclassified"
    assert new["NewOdd"].marks == ("output node", "path: file_path", "image_upload: image")
    text = describe(list(new.values()), ["Gone"])
    assert (
        "+ NewOdd (comfy_extras.nodes_odd): unclassified? [output node; path: file_path; image_upload: image]" in text
    )
    assert text.startswith("4 new classes, 1 of the presets")
    assert text.endswith("\n- Gone")


def test_classes_that_are_gone_are_found() -> None:
    assert "KSampler" in find_gone(read_catalogue({}))
    assert "KSampler" not in find_gone(read_catalogue(make_object_info()))


def test_new_classes_are_filed_and_nothing_else_changes(tmp_path: Path) -> None:
    file_new(find_new(read_catalogue(make_object_info(**NEW))), tmp_path)
    remote = tomllib.loads((tmp_path / "api-nodes.toml").read_text(encoding="utf-8"))
    assert "NewPaid" in remote["kling"]
    assert remote["fresh"] == ["NewHelper"]
    left = tomllib.loads((tmp_path / "unclassified.toml").read_text(encoding="utf-8"))
    assert left["custom_sampler"] == ["NewSampler"]
    assert left["odd"] == ["NewOdd"]
    kept = [line for line in read_text("unclassified").splitlines() if line.startswith("#")]
    written = (tmp_path / "unclassified.toml").read_text(encoding="utf-8")
    assert all(line in written for line in kept)
    assert "# From comfy_extras.nodes_odd: new, look at it." in written


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    file_new([], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_tool_shows_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "object_info.json"
    source.write_bytes(orjson.dumps(make_object_info()))
    assert main([str(source)], tmp_path) == 0
    assert capsys.readouterr().out.startswith("0 new classes")
    source.write_bytes(orjson.dumps(make_object_info(**NEW)))
    assert main([str(source)], tmp_path) == 1
    assert main([str(source), "--write"], tmp_path) == 0
    assert (tmp_path / "api-nodes.toml").exists()
    source.write_bytes(b"[]")
    assert main([str(source)], tmp_path) == 2

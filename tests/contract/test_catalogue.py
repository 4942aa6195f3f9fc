"""A.4, A.5 and D: node and model information, internal listings, system facts."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from standin import StandIn
from standin.catalogue import CATALOGUE, describe_all
from standin.folders import Folders

from .driver import Comfy, empty_image, node, png, unique

TEXTS = {"description", "output_tooltips", "search_aliases", "price_badge"}
LISTINGS = {
    ("LoadImage", "image"),
    ("LoadImageMask", "image"),
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("LoraLoader", "lora_name"),
    ("ControlNetLoader", "control_net_name"),
    ("VAELoader", "vae_name"),
    ("UNETLoader", "unet_name"),
    ("CLIPLoader", "clip_name"),
    ("LoadImageDataSetFromFolder", "folder"),
    ("LoadVideo", "file"),
    ("LoadAudio", "audio"),
    ("Load3D", "model_file"),
    ("GeminiInputFiles", "file"),
    ("GLSLShader", "fragment_shader"),
}


def _facts(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec without its prose, and without what depends on the files of the server."""
    facts = _without_tooltips({key: value for key, value in spec.items() if key not in TEXTS})
    for part in facts["input"].values():
        for name, entry in part.items():
            if (spec["name"], name) in LISTINGS:
                part[name] = "listing"
            elif isinstance(entry, list) and entry[1:] == [{}]:
                part[name] = entry[:1]
    result: dict[str, Any] = facts
    return result


def _without_tooltips(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tooltips(inner) for key, inner in value.items() if key != "tooltip"}
    return [_without_tooltips(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def own_specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folders = Folders(tmp_path_factory.mktemp("specs"))
    folders.create()
    specs: dict[str, Any] = json.loads(json.dumps(describe_all(folders)))
    return specs


@pytest.mark.parametrize("name", sorted(CATALOGUE))
async def test_spec_of_the_standin_is_the_real_one(comfy: Comfy, own_specs: dict[str, Any], name: str) -> None:
    if not comfy.is_current:
        pytest.skip("the stand-in is a 0.33")
    answer = await comfy.get(f"/object_info/{name}")
    if comfy.is_real and name == "SaveImageWebsocket" and not answer.json():
        pytest.skip("a custom node that comes with ComfyUI, absent with --base-directory")
    assert _facts(answer.json()[name]) == _facts(own_specs[name])


async def test_object_info_of_everything_holds_each_class(local: Comfy) -> None:
    everything = (await local.get("/object_info")).json()
    assert set(everything) == set(CATALOGUE)
    assert everything["SaveImage"] == (await local.get("/object_info/SaveImage")).json()["SaveImage"]


async def test_unknown_class_is_an_empty_object(comfy: Comfy) -> None:
    assert (await comfy.get("/object_info/NoSuchNode")).json() == {}


@pytest.mark.parametrize(
    "name",
    ["name", "display_name", "description", "python_module", "category", "output_node", "input", "input_order"],
)
async def test_object_info_has_the_keys_that_clients_read(comfy: Comfy, name: str) -> None:
    assert name in (await comfy.get("/object_info/KSampler")).json()["KSampler"]


async def test_listings_of_media_files(local: Comfy) -> None:
    for name in ("v.mp4", "s.mp3", "t.txt", "p.webp", ".h.png"):
        await local.put(name, b"x")
    await local.put("m.glb", b"x", subfolder="3d/deep")
    info = (await local.get("/object_info")).json()

    def options(class_type: str, name: str) -> list[str]:
        found: list[str] = info[class_type]["input"]["required"][name][1]["options"]
        return found

    assert options("LoadVideo", "file") == ["v.mp4"]
    assert options("LoadAudio", "audio") == ["s.mp3", "v.mp4"]
    assert options("GeminiInputFiles", "file") == ["t.txt"]
    assert options("Load3D", "model_file") == ["none", "3d/deep/m.glb"]
    assert info["LoadImage"]["input"]["required"]["image"][0] == [".h.png", "p.webp"]


async def test_model_kinds_and_names(comfy: Comfy) -> None:
    kinds = (await comfy.get("/models")).json()
    assert {"checkpoints", "loras", "vae", "embeddings", "text_encoders"} <= set(kinds)
    if comfy.is_current:
        assert (await comfy.get("/models/clip")).status == 404
    assert (await comfy.get("/models/nokind")).status == 404
    assert isinstance((await comfy.get("/embeddings")).json(), list)


async def test_embeddings_are_named_without_extension(local: Comfy, standin: StandIn) -> None:
    folder = Path(standin.folders.base, "models", "embeddings", "deep")
    folder.mkdir(parents=True)
    (folder / "e.pt").write_bytes(b"x")
    assert (await local.get("/embeddings")).json() == ["deep/e"]


async def test_model_folders_show_absolute_paths(comfy: Comfy) -> None:
    folders = {each["name"]: each for each in (await comfy.get("/experiment/models")).json()}
    assert "custom_nodes" not in folders
    assert all(path.startswith("/") for path in folders["checkpoints"]["folders"])
    if comfy.is_current:
        assert folders["checkpoints"]["extensions"][0] == ".bin"
    paths = (await comfy.get("/internal/folder_paths")).json()
    assert paths["checkpoints"] == folders["checkpoints"]["folders"]


async def test_model_files_have_index_and_times(comfy: Comfy) -> None:
    name = unique() + ".safetensors"
    await comfy.put(name, b"12345", type="output", subfolder="loras")
    entry = next(each for each in (await comfy.get("/experiment/models/loras")).json() if each["name"] == name)
    assert (entry["pathIndex"], entry["size"]) == (1, 5)
    assert {"name", "pathIndex", "modified", "created", "size"} == set(entry)
    assert (await comfy.get("/experiment/models/nokind")).status == 404


async def test_model_preview_is_the_picture_beside_it(comfy: Comfy) -> None:
    name = unique()
    await comfy.put(f"{name}.safetensors", struct.pack("<Q", 2) + b"{}", type="output", subfolder="loras")
    base = "/experiment/models/preview"
    assert (await comfy.get(f"{base}/loras/1/{name}.safetensors")).status == 404
    await comfy.put(f"{name}.preview.png", png(), type="output", subfolder="loras")
    answer = await comfy.get(f"{base}/loras/1/{name}.safetensors")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/webp")
    assert (await comfy.get(f"{base}/loras/1/none.safetensors")).status == 404
    assert (await comfy.get(f"{base}/nokind/0/x")).status == 404
    if comfy.is_current:
        assert (await comfy.get(f"{base}/loras/9/x")).status == 404
        assert (await comfy.get(f"{base}/loras/abc/x")).status == 400
        assert (await comfy.get(f"{base}/loras/1/")).status == 400
        assert (await comfy.get(f"{base}/loras/1/..%2F..%2F..%2Fetc%2Fpasswd")).status == 403


async def test_model_preview_of_a_broken_header_is_500(comfy: Comfy) -> None:
    name = unique() + ".safetensors"
    await comfy.put(name, b"", type="output", subfolder="loras")
    assert (await comfy.get(f"/experiment/models/preview/loras/1/{name}")).status == 500


async def test_model_preview_can_be_a_cover_in_the_header(comfy: Comfy) -> None:
    name = unique() + ".safetensors"
    covers = json.dumps([base64.b64encode(png()).decode()])
    header = json.dumps({"__metadata__": {"ssmd_cover_images": covers}}).encode()
    await comfy.put(name, struct.pack("<Q", len(header)) + header, type="output", subfolder="loras")
    answer = await comfy.get(f"/experiment/models/preview/loras/1/{name}")
    assert Image.open(io.BytesIO(answer.body)).size == (24, 16)


async def test_internal_files_lists_the_root_newest_first(comfy: Comfy) -> None:
    first, second = unique() + ".txt", unique() + ".txt"
    for name in (first, second, "." + first):
        await comfy.put(name, b"x", type="temp")
    await comfy.put("x.txt", b"x", type="temp", subfolder=unique())
    names = (await comfy.get("/internal/files/temp")).json()
    suffix = " [temp]" if comfy.is_current else ""
    assert names.index(second + suffix) < names.index(first + suffix)
    assert f"x.txt{suffix}" not in names
    assert (f".{first}{suffix}" in names) is (not comfy.is_current)
    answer = await comfy.get("/internal/files/models")
    assert (answer.status, answer.json()) == (400, {"error": "Invalid directory type"})


async def test_logs_are_open_to_everybody(comfy: Comfy) -> None:
    await comfy.submit({"1": empty_image()})
    raw = (await comfy.get("/internal/logs/raw")).json()
    assert set(raw) == {"entries", "size"}
    assert set(raw["size"]) == {"cols", "rows"}
    assert any("got prompt" in entry["m"] for entry in raw["entries"])
    text = (await comfy.get("/internal/logs")).json()
    assert "got prompt" in text


async def test_system_stats_have_versions_devices_and_arguments(comfy: Comfy) -> None:
    stats = (await comfy.get("/system_stats")).json()
    assert isinstance(stats["system"]["argv"], list)
    assert {"os", "ram_total", "ram_free", "comfyui_version", "python_version", "pytorch_version"} <= set(
        stats["system"]
    )
    assert {"name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"} == set(
        stats["devices"][0]
    )
    assert ("standin" in stats["system"]) is (not comfy.is_real)


async def test_lists_of_extensions_translations_and_templates(comfy: Comfy) -> None:
    assert all(path.startswith("/extensions/") for path in (await comfy.get("/extensions")).json())
    assert isinstance((await comfy.get("/i18n")).json(), dict)
    assert isinstance((await comfy.get("/workflow_templates")).json(), dict)
    assert (await comfy.get("/templates/index.json")).status == 200
    assert (await comfy.get("/templates/none.json")).status == 404
    assert (await comfy.get("/docs/SaveImage/en.md")).status == 200
    assert (await comfy.get("/docs/none/en.md")).status == 404


async def test_subgraphs_are_listed_without_and_read_with_data(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    listed = (await comfy.get("/global_subgraphs")).json()
    key, entry = next(iter(listed.items()))
    assert len(key) == 64
    assert set(entry) == {"source", "name", "info"}
    one = (await comfy.get(f"/global_subgraphs/{key}")).json()
    assert json.loads(one["data"])
    assert (await comfy.get("/global_subgraphs/none")).json() is None


async def test_replacements_equal_the_real_table(comfy: Comfy, local: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    assert (await comfy.get("/node_replacements")).json() == (await local.get("/node_replacements")).json()


@pytest.mark.parametrize(
    ("name", "inputs", "kind"),
    [
        ("LoadVideo", {"file": "none.mp4"}, "custom_validation_failed"),
        ("LoadAudio", {"audio": "none.mp3"}, "custom_validation_failed"),
        ("Load3D", {"model_file": "none.glb", "image": {}, "width": 8, "height": 8}, "custom_validation_failed"),
        (
            "WebcamCapture",
            {"image": "none.png", "width": 8, "height": 8, "capture_on_queue": True},
            "custom_validation_failed",
        ),
        ("GeminiInputFiles", {"file": "sub/none.txt"}, "value_not_in_list"),
        ("CheckpointLoaderSimple", {"ckpt_name": "none.safetensors"}, "value_not_in_list"),
    ],
)
async def test_names_of_missing_files_are_refused(comfy: Comfy, name: str, inputs: dict[str, Any], kind: str) -> None:
    if not comfy.is_current:
        pytest.skip("validators differ in 0.3.64")
    answer = await comfy.submit({"1": node(name, **inputs), "2": node("PreviewAny", source=["1", 0])})
    assert answer.status == 400
    assert {error["type"] for error in answer.json()["node_errors"]["1"]["errors"]} == {kind}


async def test_dynamic_inputs_are_checked(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    shader = {"fragment_shader": "x", "size_mode": "custom", "size_mode.width": 0, "images.image0": ["2", 0]}
    graph = {"1": node("GLSLShader", **shader), "2": empty_image(), "3": node("PreviewImage", images=["1", 0])}
    errors = (await comfy.submit(graph)).json()["node_errors"]["1"]["errors"]
    found = {(error["type"], error["extra_info"]["input_name"]) for error in errors}
    assert found == {
        ("value_smaller_than_min", "size_mode.width"),
        ("required_input_missing", "size_mode.height"),
    }
    assert next(error["details"] for error in errors if error["type"] == "required_input_missing") == "height"

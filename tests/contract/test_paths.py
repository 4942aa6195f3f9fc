"""C.5, C.6 and parts of 0: names of files inside prompts, and where save nodes write."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from .driver import Comfy, Graph, empty_image, errors_of, images_of, loading, node, opened, png, saving, unique

RED, BLUE = (250, 0, 0), (0, 0, 250)


async def _folder(comfy: Comfy, color: tuple[int, ...] = RED, kind: str = "input", name: str = "a.png") -> str:
    folder = unique("p")
    await comfy.put(name, png(color), subfolder=folder, type=kind)
    return folder


async def _loaded(comfy: Comfy, name: Any, class_type: str = "LoadImage", **inputs: Any) -> Any:
    entry = await comfy.run(loading(name, class_type, **inputs))
    assert entry["status"]["completed"], entry["status"]
    return opened((await comfy.view(**images_of(entry)[0])).body).getpixel((0, 0))


@pytest.mark.parametrize("name", ["{a}/a.png", "./{a}/a.png", "{b}/../{a}/a.png", "{a}//a.png", "{a}/a.png [input]"])
async def test_load_image_reads_any_subfolder(comfy: Comfy, name: str) -> None:
    a, b = await _folder(comfy), await _folder(comfy, BLUE)
    assert await _loaded(comfy, name.format(a=a, b=b)) == RED


@pytest.mark.parametrize("kind", ["output", "temp"])
async def test_annotation_reads_other_roots(comfy: Comfy, kind: str) -> None:
    folder = await _folder(comfy, kind=kind)
    assert await _loaded(comfy, f"{folder}/a.png [{kind}]") == RED
    assert await _loaded(comfy, f"{folder}/a.pngZ[{kind}]") == RED
    assert await _loaded(comfy, f"{folder}/a.png [{kind}]", "LoadImageOutput") == RED


async def test_wrapped_name_is_unwrapped_and_read(comfy: Comfy) -> None:
    folder = await _folder(comfy)
    assert await _loaded(comfy, {"__value__": f"{folder}/a.png"}) == RED


@pytest.mark.parametrize("name", ["none.png", "/etc/passwd", "../output/x.png", "../../x"])
async def test_missing_or_outside_name_is_the_same_refusal(comfy: Comfy, name: str) -> None:
    if not comfy.is_current:
        pytest.skip("0.3.64 has no containment")
    answer = await comfy.submit(loading(name))
    assert answer.status == 400
    assert answer.json()["node_errors"]["1"]["errors"] == [
        {
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": f"image - Invalid image file: {name}",
            "extra_info": {"input_name": "image"},
        }
    ]


async def test_empty_name_fails_when_it_runs(comfy: Comfy) -> None:
    entry = await comfy.run(loading(""))
    assert entry["status"]["status_str"] == "error"


@pytest.mark.parametrize("name", [5, ["a.png"], ["a", "b", "c"]])
async def test_name_that_is_no_string_is_refused(comfy: Comfy, name: Any) -> None:
    assert (await comfy.submit(loading(name))).status == 400


@pytest.mark.parametrize("class_type", ["LoadImage", "LoadImageOutput"])
async def test_linked_name_is_refused_by_accident(comfy: Comfy, class_type: str) -> None:
    graph = loading(["3", 0], class_type) | {"3": node("PrimitiveString", value="a.png")}
    answer = await comfy.submit(graph)
    assert answer.status == 400
    assert answer.json()["node_errors"]


async def test_mask_node_reads_channels(comfy: Comfy) -> None:
    folder = await _folder(comfy)
    graph: Graph = {
        "1": node("LoadImageMask", image=f"{folder}/a.png", channel="red"),
        "2": empty_image(),
        "3": node("PreviewImage", images=["2", 0]),
        "4": node("PreviewAny", source=["1", 0]),
    }
    assert (await comfy.run(graph))["status"]["completed"]
    graph["1"]["inputs"]["channel"] = "alpha"
    assert (await comfy.run(graph))["status"]["completed"]
    graph["1"]["inputs"]["channel"] = "purple"
    assert errors_of(await comfy.submit(graph), "1") == ["value_not_in_list"]


async def test_folder_combo_lists_all_subfolders_of_input(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("named differently in 0.3.64")
    folder = await _folder(comfy)
    answer = (await comfy.get("/object_info/LoadImageDataSetFromFolder")).json()["LoadImageDataSetFromFolder"]
    kind, options = answer["input"]["required"]["folder"]
    assert kind == "COMBO"
    assert folder in options["options"]
    graph = {
        "2": node("LoadImageDataSetFromFolder", folder=folder),
        "3": node("PreviewImage", images=["2", 0]),
    }
    assert len(images_of(await comfy.run(graph), "3")) == 1
    graph["2"]["inputs"]["folder"] = f"./{folder}"
    assert errors_of(await comfy.submit(graph), "2") == ["value_not_in_list"]


async def test_lists_walk_through_a_node_in_step(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("named differently in 0.3.64")
    folder, prefix = await _folder(comfy), unique()
    await comfy.put("b.png", png(BLUE), subfolder=folder)
    graph = {
        "1": node("LoadImageDataSetFromFolder", folder=folder),
        "2": node("SaveImage", images=["1", 0], filename_prefix=f"{prefix}/x"),
    }
    names = [image["filename"] for image in images_of(await comfy.run(graph))]
    assert names == ["x_00001_.png", "x_00002_.png"]


async def test_combo_of_load_image_lists_the_root_only(comfy: Comfy) -> None:
    name = unique() + ".png"
    await comfy.put(name, png())
    folder = await _folder(comfy)
    choices = (await comfy.get("/object_info/LoadImage")).json()["LoadImage"]["input"]["required"]["image"][0]
    assert name in choices
    assert not [each for each in choices if folder in each]


@pytest.mark.parametrize("prefix", ["{a}/x", "./{a}/x", "{b}/../{a}/x"])
async def test_prefix_crosses_into_any_subfolder(comfy: Comfy, prefix: str) -> None:
    a, b = unique("a"), unique("b")
    await comfy.run(saving(f"{b}/x", 1))
    image = images_of(await comfy.run(saving(prefix.format(a=a, b=b), 2)))[0]
    assert image == {"filename": "x_00001_.png", "subfolder": a, "type": "output"}


@pytest.mark.parametrize("prefix", ["/etc/ct", "../ct", "temp/../../temp/x"])
async def test_prefix_outside_of_output_fails_with_absolute_paths(comfy: Comfy, prefix: str) -> None:
    entry = await comfy.run(saving(prefix, 3))
    error = dict(entry["status"]["messages"])["execution_error"]
    assert "Saving image outside the output folder is not allowed." in error["exception_message"]
    assert re.search(r"output_dir: /", error["exception_message"])


async def test_counter_is_one_above_the_highest_and_shared(comfy: Comfy) -> None:
    folder = unique()
    await comfy.put("x_00041_.png", png(), subfolder=folder, type="output")
    await comfy.put("xy_00099_.png", png(), subfolder=folder, type="output")
    await comfy.put("x_abc.txt", png(), subfolder=folder, type="output")
    first = images_of(await comfy.run(saving(f"{folder}/x", 4)))[0]["filename"]
    second = images_of(await comfy.run(saving(f"{folder}/x", 5)))[0]["filename"]
    assert (first, second) == ("x_00042_.png", "x_00043_.png")


async def test_prefix_that_is_only_a_folder_names_the_files(comfy: Comfy) -> None:
    folder = unique()
    image = images_of(await comfy.run(saving(f"{folder}/", 6)))[0]
    assert image == {"filename": f"{folder}_00001_.png", "subfolder": "", "type": "output"}


async def test_tokens_are_filled_in_by_the_server(comfy: Comfy) -> None:
    folder = unique()
    graph = saving(f"{folder}/%year%-%month%/%width%x%height%_%batch_num%_%date:yyyy%", 7)
    graph["1"]["inputs"] |= {"width": 40, "height": 20, "batch_size": 2}
    images = images_of(await comfy.run(graph))
    assert images[0]["subfolder"] == f"{folder}/{time.strftime('%Y-%m')}"
    assert [each["filename"] for each in images] == [
        "40x20_0_%date:yyyy%_00001_.png",
        "40x20_1_%date:yyyy%_00002_.png",
    ]


@pytest.mark.parametrize("name", ["new\nline", "a:b*?", "ünï", "name [output]", "x" * 200])
async def test_odd_prefixes_are_taken_as_they_are(comfy: Comfy, name: str) -> None:
    folder = unique()
    image = images_of(await comfy.run(saving(f"{folder}/{name}", 8)))[0]
    assert image["filename"] == f"{name}_00001_.png"


async def test_linked_prefix_always_passes(comfy: Comfy) -> None:
    folder = unique()
    graph = saving("unused", 9) | {
        "3": node("StringConcatenate", string_a=folder, string_b="x", delimiter="/"),
        "4": node("PrimitiveString", value="unused"),
    }
    graph["2"]["inputs"]["filename_prefix"] = ["3", 0]
    assert images_of(await comfy.run(graph))[0]["subfolder"] == folder


async def test_saved_png_embeds_prompt_and_workflow(comfy: Comfy) -> None:
    graph = saving(f"{unique()}/x", 10)
    entry = await comfy.run(graph, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}, "more": [1]}})
    info = opened((await comfy.view(**images_of(entry)[0])).body).info
    assert json.loads(info["prompt"]) == graph
    assert json.loads(info["workflow"]) == {"id": "w"}
    assert json.loads(info["more"]) == [1]


async def test_dataset_folder_itself_is_guarded(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    inputs = {"folder_name": "../x", "filename_prefix": "i", "mode": "overwrite"}
    graph = {"1": empty_image(13), "2": node("SaveImageDataSetToFolder", images=["1", 0], **inputs)}
    entry = await comfy.run(graph)
    assert "resolves outside" in dict(entry["status"]["messages"])["execution_error"]["exception_message"]


async def test_dataset_counters_and_captions(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    folder = unique("d")
    inputs = {"folder_name": folder, "filename_prefix": "i", "mode": "increment", "texts": "hello"}
    for color in (14, 15):
        graph = {"1": empty_image(color), "2": node("SaveImageTextDataSetToFolder", images=["1", 0], **inputs)}
        assert (await comfy.run(graph))["status"]["completed"]
    assert (await comfy.view("i_00001_00000.txt", subfolder=folder)).body == b"hello"
    assert (await comfy.view("i_00002_00000.png", subfolder=folder)).status == 200

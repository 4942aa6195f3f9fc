"""C.1 and C.2: uploads and masks."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from .driver import Answer, Comfy, opened, png, saving, unique

PNG = png()


async def test_upload_is_stored_as_it_is_and_named_in_the_reply(comfy: Comfy) -> None:
    folder, name = unique(), "a.html"
    answer = await comfy.upload(name, b"<b>anything</b>", subfolder=folder)
    assert (answer.status, answer.json()) == (200, {"name": name, "subfolder": folder, "type": "input"})
    assert (await comfy.view(name, subfolder=folder, type="input")).body == b"<b>anything</b>"
    assert (await comfy.upload("empty.bin", b"", subfolder=folder)).status == 200
    assert (await comfy.upload(".dot", b"x", subfolder=folder, type="temp")).json()["type"] == "temp"


async def test_same_name_with_other_bytes_gets_a_number(comfy: Comfy) -> None:
    folder = unique()
    await comfy.put("a.png", b"one", subfolder=folder)
    assert (await comfy.upload("a.png", b"two", subfolder=folder)).json()["name"] == "a (1).png"
    assert (await comfy.upload("a.png", b"one", subfolder=folder)).json()["name"] == "a.png"
    assert (await comfy.upload("a.png", b"two", subfolder=folder)).json()["name"] == "a (1).png"
    assert (await comfy.upload("a.png", b"three", subfolder=folder)).json()["name"] == "a (2).png"


@pytest.mark.parametrize(("word", "replaces"), [("true", True), ("1", True), ("True", False), ("yes", False)])
async def test_overwrite_counts_for_two_words_only(comfy: Comfy, word: str, replaces: bool) -> None:
    folder = unique()
    await comfy.put("a.png", b"one", subfolder=folder)
    answer = await comfy.upload("a.png", b"two", subfolder=folder, overwrite=word)
    assert answer.json()["name"] == ("a.png" if replaces else "a (1).png")


@pytest.mark.parametrize(
    ("subfolder", "name"),
    [
        ("{b}", "../{a}/s.png"),
        ("{b}/../{a}", "s.png"),
        ("./{a}", "s.png"),
        ("{a}//", "s.png"),
    ],
)
async def test_upload_crosses_into_another_subfolder(comfy: Comfy, subfolder: str, name: str) -> None:
    a, b = unique("a"), unique("b")
    await comfy.put("s.png", b"of a", subfolder=a)
    await comfy.put("s.png", b"of b", subfolder=b)
    subfolder, name = subfolder.format(a=a, b=b), name.format(a=a, b=b)
    answer = await comfy.upload(name, b"evil", subfolder=subfolder, overwrite="true")
    assert (answer.status, answer.json()) == (200, {"name": name, "subfolder": subfolder, "type": "input"})
    assert (await comfy.view("s.png", subfolder=a, type="input")).body == b"evil"


async def _upload_part(comfy: Comfy, disposition: str, *fields: tuple[str, str]) -> Answer:
    lines = [f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    body = (
        "".join(lines)
        + f'--XX\r\nContent-Disposition: form-data; name="image"; {disposition}\r\n\r\nevil\r\n--XX--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    return await comfy.post("/upload/image", data=body.encode(), headers=headers)


@pytest.mark.parametrize("plain", ["", 'filename="ok.png"; '])
async def test_extended_filename_wins_and_is_decoded(comfy: Comfy, plain: str) -> None:
    a, b = unique("a"), unique("b")
    await comfy.put("s.png", b"of a", subfolder=a)
    disposition = f"{plain}filename*=UTF-8''..%2F{a}%2Fstar.png"
    answer = await _upload_part(comfy, disposition, ("subfolder", b))
    assert (answer.status, answer.json()["name"]) == (200, f"../{a}/star.png")
    assert (await comfy.view("star.png", subfolder=a, type="input")).body == b"evil"


async def test_first_of_two_subfolder_fields_wins(comfy: Comfy) -> None:
    a, b = unique("a"), unique("b")
    answer = await _upload_part(comfy, 'filename="x.png"', ("subfolder", a), ("subfolder", b))
    assert answer.json()["subfolder"] == a


@pytest.mark.parametrize("subfolder", ["..", "../output", "/tmp", "/etc"])
async def test_subfolder_outside_of_the_root_is_400(comfy: Comfy, subfolder: str) -> None:
    answer = await comfy.upload("x.png", PNG, subfolder=subfolder)
    assert (answer.status, answer.body) == (400, b"")


async def test_name_outside_of_the_root_is_400(comfy: Comfy) -> None:
    assert (await comfy.upload("../../x.png", PNG, subfolder=unique())).status == 400


async def test_percent_and_backslash_in_a_name_are_literal(comfy: Comfy) -> None:
    folder = unique()
    assert (await _upload_part(comfy, 'filename="%2e%2e.png"', ("subfolder", folder))).json()["name"] == "%2e%2e.png"
    answer = await _upload_part(comfy, "filename*=UTF-8''a%5Cb.png", ("subfolder", folder))
    assert answer.json()["name"] == "a\\b.png"


@pytest.mark.parametrize("kind", ["", "other", "models"])
async def test_unknown_type_is_500(comfy: Comfy, kind: str) -> None:
    assert (await comfy.upload("x.png", PNG, type=kind)).status == 500


@pytest.mark.parametrize("name", ["new/x.png", "nul\0.png"])
async def test_name_that_cannot_be_opened_is_500(comfy: Comfy, name: str) -> None:
    quoted = name.replace("/", "%2F").replace("\0", "%00")
    assert (await _upload_part(comfy, f"filename*=UTF-8''{quoted}", ("subfolder", unique()))).status == 500


async def test_subfolder_that_is_a_file_is_500(comfy: Comfy) -> None:
    folder = unique()
    await comfy.put("file", b"x", subfolder=folder)
    assert (await comfy.upload("x.png", PNG, subfolder=f"{folder}/file")).status == 500


async def test_missing_image_is_400_and_text_image_is_500(comfy: Comfy) -> None:
    form = aiohttp.FormData({"subfolder": "x"}, default_to_multipart=True)
    assert (await comfy.post("/upload/image", data=form)).status == 400
    form = aiohttp.FormData({"image": "text"}, default_to_multipart=True)
    assert (await comfy.post("/upload/image", data=form)).status == 500
    assert (await comfy.post("/upload/image", data={"subfolder": "x"})).status == 400


@pytest.mark.parametrize("kind", ["output", "temp"])
async def test_upload_can_plant_results(comfy: Comfy, kind: str) -> None:
    folder = unique()
    await comfy.put("r.png", PNG, type=kind, subfolder=folder)
    assert (await comfy.view("r.png", type=kind, subfolder=folder)).body == PNG


async def test_upload_into_output_checkpoints_becomes_a_model(comfy: Comfy) -> None:
    name = unique() + ".safetensors"
    await comfy.put(name, b"x", type="output", subfolder="checkpoints")
    info = (await comfy.get("/object_info/CheckpointLoaderSimple")).json()["CheckpointLoaderSimple"]
    assert name in info["input"]["required"]["ckpt_name"][0]
    assert name in (await comfy.get("/models/checkpoints")).json()


async def test_api_twin_uploads_too(comfy: Comfy) -> None:
    answer = await comfy.upload("t.png", PNG, route="/api/upload/image", subfolder=unique())
    assert answer.status == 200


async def _mask(comfy: Comfy, name: str, original: Any, **fields: str) -> Answer:
    mask = png((0, 0, 0, 77), "RGBA")
    return await comfy.upload(name, mask, route="/upload/mask", original_ref=json.dumps(original), **fields)


async def _result_with_text(comfy: Comfy) -> dict[str, str]:
    graph = saving(f"{unique('a')}/x", 0x336699)
    graph["1"]["inputs"] |= {"width": 24, "height": 16}
    entry = await comfy.run(graph, extra_data={"extra_pnginfo": {"workflow": {"note": "secret of a"}}})
    image: dict[str, str] = entry["outputs"]["2"]["images"][0]
    return image


async def test_mask_copies_pixels_and_text_of_another_folder(comfy: Comfy) -> None:
    original, folder = await _result_with_text(comfy), unique("b")
    answer = await _mask(comfy, "m.png", original, subfolder=folder, type="input")
    assert (answer.status, answer.json()) == (200, {"name": "m.png", "subfolder": folder, "type": "input"})
    made = opened((await comfy.view("m.png", subfolder=folder, type="input")).body)
    assert made.getpixel((0, 0)) == (0x33, 0x66, 0x99, 77)
    assert json.loads(made.info["workflow"])["note"] == "secret of a"


@pytest.mark.parametrize("annotation", ["", " [output]", "Z[output]"])
async def test_mask_original_may_have_directories_and_an_annotation(comfy: Comfy, annotation: str) -> None:
    original, folder = await _result_with_text(comfy), unique("b")
    ref = {"filename": f"{original['subfolder']}/{original['filename']}{annotation}", "type": "output"}
    await _mask(comfy, "m.png", ref, subfolder=folder, type="input")
    assert (await comfy.view("m.png", subfolder=folder, type="input")).status == 200


@pytest.mark.parametrize(
    "ref",
    [
        {"filename": "none.png"},
        {"filename": "/etc/passwd"},
        {"filename": "../x.png"},
        {"filename": ""},
        {"filename": "x.png", "type": "models"},
        {"filename": "x.png", "subfolder": "../.."},
    ],
)
async def test_mask_of_a_refused_original_is_200_and_writes_nothing(comfy: Comfy, ref: dict[str, str]) -> None:
    folder = unique("b")
    answer = await _mask(comfy, "m.png", ref, subfolder=folder, type="input")
    assert (answer.status, answer.json()["name"]) == (200, "m.png")
    assert (await comfy.view("m.png", subfolder=folder, type="input")).status == 404


async def test_mask_without_original_is_500(comfy: Comfy) -> None:
    assert (await comfy.upload("m.png", PNG, route="/upload/mask", subfolder=unique())).status == 500
    assert (await _mask(comfy, "m.png", None, subfolder=unique())).status == 500

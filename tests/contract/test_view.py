"""C.3, C.4 and the file part of G.3: GET /view and /view_metadata."""

from __future__ import annotations

import json
import mimetypes
import re
import struct
import time

import pytest

from proxy.files.comfyui_folders import PLAIN_TYPES

from .driver import Comfy, opened, png, unique

RGBA = png((10, 20, 30, 40), "RGBA")


async def _stored(comfy: Comfy, name: str = "s.png", data: bytes = RGBA, kind: str = "input") -> str:
    folder = unique("v")
    await comfy.put(name, data, subfolder=folder, type=kind)
    return folder


async def test_view_sends_the_file_with_validators(comfy: Comfy) -> None:
    folder = await _stored(comfy)
    answer = await comfy.view("s.png", subfolder=folder, type="input")
    assert (answer.status, answer.body) == (200, RGBA)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'filename="s.png"'
    assert "Cache-Control" not in answer.headers
    if comfy.is_current:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    query = f"/view?filename=s.png&subfolder={folder}&type=input"
    again = await comfy.get(query, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    part = await comfy.get(query, headers={"Range": "bytes=1-3"})
    assert (part.status, part.body) == (206, b"PNG")
    head = await comfy.call("HEAD", query)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(RGBA)))
    # Assets are stamped with it: the time of the last change in ns, and the size (proxy/v2/stamps.py).
    assert head.headers["ETag"] == answer.headers["ETag"]
    found = re.fullmatch(r'"([0-9a-f]+)-([0-9a-f]+)"', head.headers["ETag"])
    assert found is not None
    assert abs(int(found[1], 16) / 1e9 - time.time()) < 3600
    assert int(found[2], 16) == len(RGBA)


async def test_type_is_output_by_default(comfy: Comfy) -> None:
    folder = await _stored(comfy, kind="output")
    assert (await comfy.view("s.png", subfolder=folder)).status == 200
    assert (await comfy.view("s.png", subfolder=folder, type="input")).status == 404


@pytest.mark.parametrize("kind", ["", "models", "Output"])
async def test_unknown_type_is_400(comfy: Comfy, kind: str) -> None:
    assert (await comfy.view("s.png", type=kind)).status == 400


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../s.png", "a..b.png", " [output]", "x[output]"])
async def test_name_that_looks_outside_is_400(comfy: Comfy, name: str) -> None:
    answer = await comfy.view(name)
    assert (answer.status, answer.body) == (400, b"")


async def test_view_without_filename_is_404(comfy: Comfy) -> None:
    assert (await comfy.get("/view")).status == 404
    assert (await comfy.view("nothing-here.png")).status == 404


@pytest.mark.parametrize("subfolder", ["/etc", "../../..", ".."])
async def test_subfolder_outside_is_403(comfy: Comfy, subfolder: str) -> None:
    answer = await comfy.view("passwd", subfolder=subfolder, type="input")
    assert (answer.status, answer.body) == (403, b"")


async def test_only_the_basename_of_the_filename_counts(comfy: Comfy) -> None:
    folder = await _stored(comfy)
    assert (await comfy.view("zzz/s.png", subfolder=folder, type="input")).status == 200


async def test_dots_in_the_subfolder_work_while_both_folders_exist(comfy: Comfy) -> None:
    a, b = await _stored(comfy), await _stored(comfy)
    assert (await comfy.view("s.png", subfolder=f"{b}/../{a}", type="input")).status == 200
    assert (await comfy.view("s.png", subfolder=f"{unique()}/../{a}", type="input")).status == 404


@pytest.mark.parametrize("suffix", [" [input]", "Z[input]"])
async def test_annotation_overrides_the_type(comfy: Comfy, suffix: str) -> None:
    folder = await _stored(comfy)
    answer = await comfy.view(f"s.png{suffix}", subfolder=folder, type="output")
    assert (answer.status, answer.body) == (200, RGBA)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ({"preview": "webp"}, "WEBP"),
        ({"preview": "jpeg;50"}, "JPEG"),
        ({"preview": "bogus;50"}, "WEBP"),
        ({"preview": "jpeg;q=80"}, "JPEG"),
        ({"preview": "jpeg;0"}, "JPEG"),
        ({"preview": "jpeg", "channel": "rgba"}, "WEBP"),
        ({"preview": "jpeg", "channel": "rgb"}, "JPEG"),
    ],
)
async def test_preview_encodes_anew(comfy: Comfy, query: dict[str, str], kind: str) -> None:
    folder = await _stored(comfy)
    answer = await comfy.view("s.png", subfolder=folder, type="input", **query)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == f"image/{kind.lower()}"
    assert opened(answer.body).format == kind
    assert "ETag" not in answer.headers
    assert answer.headers["Content-Disposition"] == 'filename="s.png"'


async def test_channels_are_split(comfy: Comfy) -> None:
    folder = await _stored(comfy)

    async def pixel(channel: str) -> object:
        return opened((await comfy.view("s.png", subfolder=folder, type="input", channel=channel)).body).getpixel(
            (0, 0)
        )

    assert await pixel("rgb") == (10, 20, 30)
    assert await pixel("a") == (0, 0, 0, 40)
    assert (await comfy.view("s.png", subfolder=folder, type="input", channel="r")).body == RGBA


async def test_alpha_of_a_picture_without_one_is_opaque(comfy: Comfy) -> None:
    folder = await _stored(comfy, data=png())
    answer = await comfy.view("s.png", subfolder=folder, type="input", channel="a")
    assert opened(answer.body).getpixel((0, 0)) == (0, 0, 0, 255)


@pytest.mark.parametrize("query", [{"preview": "webp;9999"}, {"preview": "webp"}, {"channel": "rgb"}])
async def test_bad_quality_or_no_picture_is_500(comfy: Comfy, query: dict[str, str]) -> None:
    folder = await _stored(comfy, "t.txt", b"no picture")
    name = "t.txt"
    if query["preview" if "preview" in query else "channel"].endswith("9999"):
        folder, name = await _stored(comfy), "s.png"
    assert (await comfy.view(name, subfolder=folder, type="input", **query)).status == 500


@pytest.mark.parametrize("name", ["a.html", "a.js", "a.css", "a.xml", "a.svg", "a.xhtml"])
async def test_active_types_are_downloads(comfy: Comfy, name: str) -> None:
    folder = await _stored(comfy, name, b"<svg/>")
    answer = await comfy.view(name, subfolder=folder, type="input")
    if comfy.is_current or name.endswith((".html", ".css")):
        assert answer.headers["Content-Type"] == "application/octet-stream"
    if comfy.is_current:
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert (answer.headers["Vary"], answer.headers["Cache-Control"]) == ("Sec-Fetch-Dest", "no-store")


async def test_svg_is_inline_for_an_img_element(comfy: Comfy) -> None:
    folder = await _stored(comfy, "a.svg", b"<svg/>")
    query = f"/view?filename=a.svg&subfolder={folder}&type=input"
    answer = await comfy.get(query, headers={"Sec-Fetch-Dest": "image"})
    assert answer.headers["Content-Type"] == "image/svg+xml"
    if comfy.is_current:
        assert answer.headers["Content-Disposition"] == 'filename="a.svg"'


async def test_quote_in_a_name_is_escaped(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("0.3.64 does not escape")
    folder = unique()
    body = f'--XX\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\n{folder}\r\n'
    body += "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename*=UTF-8''a%22b.txt\r\n\r\nx\r\n--XX--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    assert (await comfy.post("/upload/image", data=body.encode(), headers=headers)).status == 200
    answer = await comfy.view('a"b.txt', subfolder=folder, type="input")
    assert answer.headers["Content-Disposition"] == 'filename="a\\"b.txt"'


async def test_hash_names_are_not_found_without_assets(comfy: Comfy) -> None:
    answer = await comfy.view("blake3:" + "0" * 64)
    assert answer.status == 404


def _safetensors(header: dict[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


async def test_metadata_of_a_model_header(comfy: Comfy) -> None:
    name = unique() + ".safetensors"
    await comfy.put(name, _safetensors({"__metadata__": {"k": "v"}}), type="output", subfolder="loras")
    answer = await comfy.get(f"/view_metadata/loras?filename={name}")
    assert (answer.status, answer.json()) == (200, {"k": "v"})
    bare = unique() + ".safetensors"
    await comfy.put(bare, _safetensors({"a": {}}), type="output", subfolder="loras")
    await comfy.put(bare + ".txt", b"x", type="output", subfolder="loras")
    huge = unique() + ".safetensors"
    await comfy.put(huge, struct.pack("<Q", 1 << 40), type="output", subfolder="loras")
    for query in (f"?filename={bare}", f"?filename={huge}", f"?filename={bare}.txt", "?filename=none.safetensors", ""):
        assert (await comfy.get(f"/view_metadata/loras{query}")).status == 404
    assert (await comfy.get(f"/view_metadata/nokind?filename={name}")).status == 404


@pytest.mark.parametrize("suffix", sorted(PLAIN_TYPES))
async def test_the_type_of_a_plain_file(comfy: Comfy, suffix: str) -> None:
    """What the gate says of a file that it serves from disk is what ComfyUI says, where the machine's own table knows as much."""
    folder = await _stored(comfy, name=f"s{suffix}")
    answer = await comfy.view(f"s{suffix}", subfolder=folder, type="input")
    assert answer.status == 200
    assert answer.headers["Content-Type"] in {PLAIN_TYPES[suffix], mimetypes.guess_type(f"s{suffix}")[0]}

"""Mallory uploads: into alice's folder, over alice's picture, into ComfyUI's own folders. Whatever the shape, only her own folders change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.driver import Answer, loading
from tests.matrix.guard import nothing_else_changes
from tests.matrix.multipart import CONTENT_TYPE, body, field, file, part
from tests.matrix.people import GREEN, RED, is_color, picture_in, png, seen, told
from tests.matrix.world import World

MINE = png(GREEN)
VICTIM = "victim.png"
PLAYLIST = b"#EXTM3U\n#EXT-X-ENDLIST\n"
NAMES = [
    "../alice/victim.png",
    "../../tenants/alice/victim.png",
    "tenants/alice/victim.png",
    "..\\alice\\victim.png",
    "..\\\\alice\\\\victim.png",
    "/tmp/victim.png",
    "./victim.png",
    "x/../../alice/victim.png",
    "C:victim.png",
    "C:\\victim.png",
    "\\\\host\\share\\victim.png",
    "..",
    ".",
    "",
    "con.png",
    "victim.png ",
    "victim.png.",
    "victim.png [output]",
    "victim.png[input]",
    "victim.png\x00.png",
    "vict\nim.png",
    "vict\u200bim.png",
    "..\uff0falice\uff0fvictim.png",
    "\u2025/alice/victim.png",
    "a" * 300 + ".png",
    "blake3:" + "0" * 64,
]
SUBFOLDERS = [
    "..",
    "../alice",
    "../../tenants/alice",
    "x/../../alice",
    "tenants/mallory/../alice",
    "/tenants/alice",
    "/etc",
    "//alice",
    "x//y",
    "./x",
    "x/.",
    "..\\alice",
    "C:",
    "x ",
    "x.",
    "nul",
    "%2e%2e/alice",
    "\uff0e\uff0e/alice",
    "tenants/mallory",
    "tenants/mallory/x",
    "ten\u200bants",
]


def forms(base: Path) -> dict[str, bytes]:
    """Every shape by name."""
    root = f"{base}/input/tenants/alice"
    shapes = {f"filename {name!r}": body(file(MINE, name)) for name in NAMES if '"' not in name and "\n" not in name}
    shapes |= {
        f"filename* {name!r}": body(file(MINE, disposition=f"name=\"image\"; filename*=UTF-8''{_quoted(name)}"))
        for name in NAMES
    }
    shapes |= {
        f"filename* beside a good one {name!r}": body(
            file(MINE, disposition=f'name="image"; filename="ok.png"; filename*=UTF-8\'\'{_quoted(name)}')
        )
        for name in NAMES
    }
    for name in [*SUBFOLDERS, root]:
        shapes[f"subfolder {name!r}"] = body(field("subfolder", name), file(MINE, VICTIM), field("overwrite", "true"))
        shapes[f"subfolder after the file {name!r}"] = body(file(MINE, VICTIM), field("subfolder", name))
    return shapes | {
        "two subfolders": body(field("subfolder", "../alice"), field("subfolder", "x"), file(MINE, VICTIM)),
        "two subfolders, the bad one last": body(field("subfolder", "x"), file(MINE), field("subfolder", "../alice")),
        "two types": body(field("type", "input"), field("type", "output"), file(MINE)),
        "two files": body(file(MINE, "a.png"), file(MINE, "../alice/victim.png")),
        "two filenames": body(file(MINE, disposition='name="image"; filename="a.png"; filename="../alice/victim.png"')),
        "two names": body(file(MINE, disposition='name="x"; name="image"; filename="a.png"')),
        "two dispositions": body(
            part(
                'name="image"; filename="a.png"', MINE, 'Content-Disposition: form-data; name="image"; filename="b.png"'
            )
        ),
        "continued filename": body(
            file(MINE, disposition='name="image"; filename*0="../alice/"; filename*1="victim.png"')
        ),
        "continued filename, encoded": body(
            file(MINE, disposition="name=\"image\"; filename*0*=UTF-8''..%2Falice%2F; filename*1*=victim.png")
        ),
        "filename unquoted": body(file(MINE, disposition='name="image"; filename=../alice/victim.png')),
        "filename with escapes": body(file(MINE, disposition='name="image"; filename="..\\/alice\\/victim.png"')),
        "type of none": body(field("type", "models"), file(MINE)),
        "type empty": body(field("type", ""), file(MINE)),
        "type userdata": body(field("type", "user"), file(MINE)),
        "subfolder as a file": body(part('name="subfolder"; filename="s"', b"../alice"), file(MINE)),
        "image as a text": body(field("image", "../alice/victim.png")),
        "no file": body(field("subfolder", "x")),
        "model folder": body(field("type", "output"), field("subfolder", "checkpoints"), file(MINE, "x.safetensors")),
        "playlist by name": body(file(PLAYLIST, "x.m3u8")),
        "playlist as a picture": body(file(PLAYLIST, "x.png")),
        "playlist as a film": body(file(PLAYLIST, "x.mp4")),
        "playlist after a head": body(file(MINE[:8] + PLAYLIST, "x.png")),
        "page": body(file(b"<html><script>", "x.html")),
        "drawing": body(file(b"<svg xmlns='http://www.w3.org/2000/svg'>", "x.svg")),
        "program": body(file(b"import os", "x.py")),
        "hidden": body(file(MINE, ".hidden")),
        "no end": body(file(MINE, "x.png"))[:-4],
        "nothing": b"",
    }


def _quoted(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())


# aiohttp warns of what the gate refuses.
async def test_no_shape_of_an_upload_leaves_the_tenants_folders(world: World) -> None:
    alice, mallory, base = world.alice, world.mallory, world.base
    for fields in ({}, {"type": "output"}, {"subfolder": "sub"}):
        await alice.photo(VICTIM, **fields)
    for name, shape in forms(base or Path("/comfyui")).items():
        for route in ("/upload/image", "/api/upload/mask"):
            with nothing_else_changes(base, "mallory"):
                answer = await mallory.post(route, data=shape, headers=CONTENT_TYPE, said=name)
            assert answer.status in (200, 400, 403), f"{name}: {told(answer)}"
            if answer.status == 200:
                stored = answer.json()
                assert not {"..", "tenants"} & set(f"{stored['subfolder']}/{stored['name']}".split("/")), (
                    f"{name}: {stored}"
                )
                assert "\\" not in stored["name"]
    for fields in ({"type": "input"}, {"type": "output"}, {"type": "input", "subfolder": "sub"}):
        picture = picture_in((await alice.view(VICTIM, **fields)).body)
        assert picture is not None
        assert is_color(picture, RED)


REFUSED = (
    "filename* '../alice/victim.png'",
    "two subfolders",
    "two files",
    "playlist as a picture",
    "subfolder '../alice'",
)


@pytest.mark.parametrize("name", REFUSED)
async def test_these_shapes_are_refused_before_comfyui_is_asked(standing: World, tmp_path: Path, name: str) -> None:
    answer = await standing.mallory.post("/upload/image", data=forms(tmp_path)[name], headers=CONTENT_TYPE, said=name)
    assert answer.status in (400, 403), told(answer)
    assert not [
        each for each in standing.standin.received if each.raw_path == "/upload/image" and VICTIM.encode() in each.body
    ]


def _ref(base: Path) -> dict[str, object]:
    absolute = f"{base}/input/tenants/alice"
    return {
        "by path": {"filename": "tenants/alice/victim.png", "type": "input"},
        "by parent": {"filename": "../alice/victim.png", "type": "input"},
        "by subfolder": {"filename": "victim.png", "subfolder": "tenants/alice", "type": "input"},
        "by parent subfolder": {"filename": "victim.png", "subfolder": "../alice", "type": "input"},
        "by absolute subfolder": {"filename": "victim.png", "subfolder": absolute, "type": "input"},
        "by absolute name": {"filename": f"{absolute}/victim.png", "type": "input"},
        "annotated": {"filename": "tenants/alice/victim.png [input]"},
        "annotated, no space": {"filename": "tenants/alice/victim.pngX[input]"},
        "annotated twice": {"filename": "victim.png [input] [output]", "subfolder": "tenants/alice"},
        "wrapped": {"filename": {"__value__": "tenants/alice/victim.png"}, "type": "input"},
        "by hash": {"filename": "blake3:" + "0" * 64},
        "list": ["tenants/alice/victim.png"],
        "text": "tenants/alice/victim.png",
        "null": None,
        "type list": {"filename": "victim.png", "type": ["input"]},
        "subfolder list": {"filename": "victim.png", "subfolder": ["tenants/alice"]},
        "empty": {},
    }


async def test_a_mask_is_put_on_no_foreign_picture(world: World) -> None:
    """ComfyUI copies the pixels and the texts of the picture that original_ref names."""
    base = world.base
    await world.alice.photo(VICTIM)
    for name, reference in _ref(base or Path("/comfyui")).items():
        for text in {json.dumps(reference), json.dumps(reference).replace("/", "\\/")}:
            form = body(field("type", "input"), field("original_ref", text), file(MINE, "mask.png"))
            with nothing_else_changes(base, "mallory"):
                answer = await world.mallory.post("/upload/mask", data=form, headers=CONTENT_TYPE, said=text)
            assert answer.status in (200, 400), f"{name}: {told(answer)}"
            assert (await world.mallory.view("mask.png", type="input")).status == 404, f"{name} made a picture"
    twice = '{"filename":"own.png","filename":"tenants/alice/victim.png","type":"input"}'
    form = body(field("original_ref", twice), file(MINE, "mask.png"))
    assert (await world.mallory.post("/upload/mask", data=form, headers=CONTENT_TYPE, said=twice)).status == 400


async def test_a_mask_is_put_on_ones_own_picture(world: World) -> None:
    await world.mallory.photo("own.png", overwrite="true")
    reference = json.dumps({"filename": "own.png", "subfolder": "", "type": "input"})
    answer = await world.mallory.upload(
        "mask.png",
        png(GREEN),
        "/upload/mask",
        type="input",
        subfolder="clipspace",
        original_ref=reference,
        overwrite="true",
    )
    assert answer.json() == {"name": "mask.png", "subfolder": "clipspace", "type": "input"}, told(answer)
    picture = picture_in((await world.mallory.view("mask.png", type="input", subfolder="clipspace")).body)
    assert picture is not None
    assert is_color(picture, GREEN)
    assert (await world.mallory.submit(loading("clipspace/mask.png [input]"))).status == 200


async def test_the_same_bytes_under_the_same_name_tell_nothing(world: World) -> None:
    """ComfyUI answers with the old name when it has these bytes: only one's own folder is looked at."""
    secret = png((1, 2, 3), (31, 7))
    answers: list[Answer] = []
    for name in ("known.png", "other.png"):
        if name == "known.png":
            await world.alice.put(name, secret, overwrite="true")
        answers.append(await world.mallory.upload(name, secret, overwrite="false"))
    known, other = (seen(answer) for answer in answers)
    assert known[2] == other[2].replace(b"other", b"known")
    assert known[:2] == other[:2]

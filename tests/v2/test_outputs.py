"""Outputs of every kind have a type that the SDKs know, their true size, and their bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.contract.driver import Graph, empty_image, node
from tests.v2.pack import showing
from tests.v2.sdk import WRITTEN_APART
from tests.v2.world import OpenWorld, World, as_bytes, decoded, new_color

SDKS = WRITTEN_APART

TEXT = "what the node shows: ä\u2028é"


def file(name: str, kind: str = "output", subfolder: str = "") -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": kind}


# What ComfyUI has in its history, and the outputs that come of it: name, type, content type.
SHOWN: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    ({"images": [file("a.png"), file("b.webp")]}, [("a.png", "image", "image/png"), ("b.webp", "image", "image/webp")]),
    ({"images": [file("c.mp4", subfolder="video")], "animated": [True]}, [("c.mp4", "video", "video/mp4")]),
    ({"images": [file("d.webm")], "animated": [True]}, [("d.webm", "video", "video/webm")]),
    ({"images": [file("e.webp")], "animated": [True]}, [("e.webp", "image", "image/webp")]),
    ({"images": [file("f.png", "temp")]}, [("f.png", "image", "image/png")]),
    ({"gifs": [file("g.mp4") | {"format": "video/h264-mp4"}]}, [("g.mp4", "video", "video/mp4")]),
    ({"audio": [file("h.flac", subfolder="audio")]}, [("h.flac", "audio", "audio/flac")]),
    ({"audio": [file("i.mp3"), file("j.opus")]}, [("i.mp3", "audio", "audio/mpeg"), ("j.opus", "audio", "")]),
    ({"3d": [file("k.glb", subfolder="3d")]}, [("k.glb", "file", "model/gltf-binary")]),
    ({"result": [file("l.ply")]}, [("l.ply", "file", "")]),
    ({"latents": [file("m.latent", subfolder="latents")]}, [("m.latent", "latent", "")]),
    ({"files": [file("n.txt")]}, [("n.txt", "file", "text/plain")]),
    ({"unheard_of": [file("o.xyz")]}, [("o.xyz", "file", "")]),
]


@pytest.mark.parametrize(("ui", "expected"), SHOWN, ids=[expected[0][0] for _, expected in SHOWN])
async def test_a_file_has_a_type_of_the_contract(
    standin_world: World, ui: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    """A real one has no node that shows just anything; see below."""
    sdk = await standin_world.sdk("sync")
    job = await sdk.call("submit", graph=showing(ui))
    events = sdk.begin("events", job=job["id"])
    job = await sdk.call("result", job=job["id"])
    found = [(each["name"], each["type"], each["content_type"]) for each in job["outputs"]]
    assert [each[:2] for each in found] == [each[:2] for each in expected]
    assert all(wanted in ("", told) for (*_, told), (*_, wanted) in zip(found, expected, strict=True))
    for output in job["outputs"]:
        data = decoded(await sdk.call("read", job=job["id"], output=output["id"]))
        assert data == f"the bytes of {output['name']}".encode()
        assert output["size_bytes"] == len(data)
    await events.value()


async def test_a_text_is_an_output(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    graph = {"1": node("PrimitiveString", value=TEXT), "2": node("PreviewAny", source=["1", 0])}
    job = await sdk.call("run", graph=graph)
    (output,) = job["outputs"]
    assert (output["node_id"], output["type"]) == ("2", "text")
    assert output["content_type"].startswith("text/plain")
    data = decoded(await sdk.call("read", job=job["id"], output=output["id"]))
    assert data.decode() == TEXT
    assert output["size_bytes"] == len(data)


async def test_a_saved_text_is_a_file_and_a_text(world: World, kind: str) -> None:
    sdk = await world.sdk(kind)
    graph = {
        "1": node("PrimitiveString", value=TEXT),
        "2": node("SaveText", text=["1", 0], filename_prefix="v2", format="txt"),
    }
    job = await sdk.call("run", graph=graph)
    read = [decoded(await sdk.call("read", job=job["id"], output=each["id"])) for each in job["outputs"]]
    assert sorted(each["type"] for each in job["outputs"]) == ["file", "text"]
    assert {each.decode() for each in read} == {TEXT}


def picture() -> Graph:
    return {"1": empty_image(new_color(), batch_size=3, width=64, height=64)}


VIDEO = {"2": node("CreateVideo", images=["1", 0], fps=8.0)}
AUDIO = {"2": node("EmptyAudio", duration=0.2, sample_rate=8000, channels=1)}
LATENT = {"2": node("EmptyLatentImage", width=16, height=16, batch_size=1)}
# Of a real ComfyUI: the graph, whose last node is an output node, and its output: type, content type.
REAL: dict[str, tuple[Graph, tuple[str, str]]] = {
    "SaveVideo": (
        VIDEO
        | {"3": node("SaveVideo", video=["2", 0], filename_prefix="v2", **{"format": "mp4", "format.codec": "auto"})},
        ("video", "video/mp4"),
    ),
    "SaveWEBM": (
        {"3": node("SaveWEBM", images=["1", 0], filename_prefix="v2", codec="vp9", fps=8.0, crf=32.0)},
        ("video", "video/webm"),
    ),
    "SaveAnimatedWEBP": (
        {
            "3": node(
                "SaveAnimatedWEBP",
                images=["1", 0],
                filename_prefix="v2",
                fps=8.0,
                lossless=True,
                quality=80,
                method="default",
            )
        },
        ("image", "image/webp"),
    ),
    "SaveAudio": (AUDIO | {"3": node("SaveAudio", audio=["2", 0], filename_prefix="v2")}, ("audio", "audio/flac")),
    "SaveLatent": (LATENT | {"3": node("SaveLatent", samples=["2", 0], filename_prefix="v2")}, ("latent", "")),
}


@pytest.mark.parametrize("name", REAL)
async def test_comfyuis_own_savers(real_world: World, kind: str, name: str) -> None:
    """The stand-in does not run them; what they show is in SHOWN."""
    sdk = await real_world.sdk(kind)
    graph, (wanted, content_type) = REAL[name]
    job = await sdk.call("submit", graph=picture() | graph)
    events = sdk.begin("events", job=job["id"])
    job = await sdk.call("result", job=job["id"])
    (output,) = job["outputs"]
    assert (output["type"], output["node_id"]) == (wanted, "3")
    assert content_type in ("", output["content_type"])
    assert len(decoded(await sdk.call("read", job=job["id"], output=output["id"]))) == output["size_bytes"] > 0
    await events.value()


def glb() -> bytes:
    """The smallest glTF 2.0 file: a head, and a scene of nothing."""
    scene = b'{"asset":{"version":"2.0"}} '
    return b"glTF" + struct.pack("<III4s", 2, 20 + len(scene), len(scene), b"JSON") + scene


async def test_a_3d_model_goes_in_and_comes_out(real_target: str, worlds: OpenWorld, kind: str) -> None:
    """Where the operator takes such uploads. ComfyUI's loader finds models below input/3d alone."""
    async with worlds(real_target, upstream_more='upload_types = ["image", "3d"]\n') as world:
        sdk = await world.sdk(kind)
        model = {"$bytes": as_bytes(glb(), "3d/model.glb", "model/gltf-binary")}
        graph = {
            "1": node("Load3DAdvanced", model_file=model, viewport_state="", width=64, height=64),
            "2": node("SaveGLB", mesh=["1", 0], filename_prefix="v2"),
        }
        job = await sdk.call("run", graph=graph)
        (output,) = job["outputs"]
        assert (output["type"], output["content_type"]) == ("file", "model/gltf-binary")
        assert len(decoded(await sdk.call("read", job=job["id"], output=output["id"]))) == output["size_bytes"]

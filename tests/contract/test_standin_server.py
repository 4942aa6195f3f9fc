"""What only the stand-in has: its record of requests, its life cycle, its command line, models that are noise."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
import types
from pathlib import Path

import aiohttp
import pytest

from standin import Received, SocketFrame, StandIn
from standin.__main__ import run

from .driver import Comfy, Graph, images_of, loading, node, opened, png, previewing, slow


async def test_received_requests_are_kept_as_they_arrived(local: Comfy, standin: StandIn) -> None:
    await local.raw("/vi%65w?a=1&a=2&b=%2F", headers={"X-Thing": "1"})
    got = standin.received[-1]
    assert isinstance(got, Received)
    assert (got.method, got.raw_path) == ("GET", "/vi%65w?a=1&a=2&b=%2F")
    assert got.query == [("a", "1"), ("a", "2"), ("b", "/")]
    assert got.headers["x-thing"] == "1"
    assert (got.body, got.websocket) == (b"", False)
    await local.post("/userdata/x", data=io.BytesIO(b"a" * (2 * 1024 * 1024)))
    assert standin.received[-1].body == b"a" * (1024 * 1024)
    assert len((await local.get("/userdata/x")).body) == 2 * 1024 * 1024


async def test_received_websocket_and_its_frames_are_kept(local: Comfy, standin: StandIn) -> None:
    async with local.socket("me") as socket:
        await socket.connection.send_str('{"type": "x"}')
        await socket.connection.send_bytes(b"\x01")
        await socket.connection.send_json({"type": "feature_flags", "data": {}})
    upgrade = next(each for each in standin.received if each.websocket)
    assert upgrade.query == [("clientId", "me")]
    while len(standin.sockets_received) < 3:
        await asyncio.sleep(0)
    assert standin.sockets_received[:2] == [SocketFrame("me", '{"type": "x"}'), SocketFrame("me", b"\x01")]


async def test_record_is_bounded(local: Comfy, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standin.middleware.MAX_KEPT_REQUESTS", 10)
    for _ in range(25):
        await local.get("/prompt")
    assert len(standin.received) <= 10


async def test_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        standin = StandIn(tmp_path, frontend=False)
        assert not standin.alive
        assert not standin.worker_alive
        await standin.start()
        comfy = Comfy(standin.url, session, (0, 33, 0), is_real=False)
        socket = await comfy.connect("x")
        prompt_id = await comfy.queue(slow(), client_id="x")
        await socket.event("progress", prompt_id)
        assert (standin.alive, standin.worker_alive) == (True, True)
        await standin.stop()
        assert (standin.alive, standin.worker_alive) == (False, False)
        with pytest.raises(aiohttp.ClientError):
            await comfy.get("/prompt")
        await socket.close()
    await standin.stop()
    assert [each.name for each in threading.enumerate() if each.name.startswith("standin")] == []
    own = asyncio.current_task()
    assert [task for task in asyncio.all_tasks() if task is not own and "standin" in task.get_name()] == []
    gc.collect()


async def test_port_that_is_taken_is_an_error(standin: StandIn, tmp_path: Path) -> None:
    second = StandIn(tmp_path / "second", frontend=False)
    with pytest.raises(OSError, match="address"):
        await second.start(port=standin.port)
    assert not second.alive
    await second.stop()


async def test_restart_loses_what_a_restart_loses(local: Comfy, standin: StandIn) -> None:
    await local.run(previewing(1))
    await local.put("a.png", png(), type="temp")
    await local.put("a.png", png(), type="input")
    socket = await local.connect("x")
    prompt_id = await local.queue(slow(), client_id="x")
    await socket.event("progress", prompt_id)
    await local.queue(previewing(2))
    standin.restart_state()
    while (await socket.connection.receive(timeout=240)).type is aiohttp.WSMsgType.TEXT:
        pass
    assert (await local.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
    assert (await local.get("/history")).json() == {}
    assert (await local.view("a.png", type="temp")).status == 404
    assert (await local.view("a.png", type="input")).status == 200
    assert (await local.submit(previewing(3))).json()["number"] == 0
    await socket.close()


async def test_temp_is_empty_after_a_start(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp" / "old.png").write_bytes(b"x")
    standin = StandIn(tmp_path, frontend=False)
    standin.restart_state()  # nothing to lose yet
    await standin.start()
    await standin.stop()
    assert list((tmp_path / "temp").iterdir()) == []


async def test_web_ui_is_served_when_its_package_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static = tmp_path / "site" / "comfyui_frontend_package" / "static"
    static.mkdir(parents=True)
    (static.parent / "__init__.py").write_text("")
    (static / "index.html").write_text("the real web UI")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "comfyui_frontend_package", raising=False)
    for has_frontend, wanted in ((True, b"the real web UI"), (False, b"Stand-in for ComfyUI")):
        standin = StandIn(tmp_path / "base", frontend=has_frontend)
        await standin.start()
        async with aiohttp.ClientSession() as session, session.get(standin.url) as reply:
            assert wanted in await reply.read()
        await standin.stop()


async def test_own_page_and_its_files(local: Comfy) -> None:
    for path in ("/assets/standin-d41d8cd9.js", "/assets/standin-d41d8cd9.css", "/extensions/core/noop.js"):
        answer = await local.get(path)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert (await local.get("/extensions")).json() == ["/extensions/core/noop.js"]


def _text_to_image(seed: int, text: str) -> Graph:
    settings = {"steps": 3, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["9", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="sd.safetensors"),
        "2": node("CLIPTextEncode", text=text, clip=["9", 1]),
        "3": node("CLIPTextEncode", text="bad", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=64, height=48, batch_size=2),
        "5": node("KSampler", seed=seed, **settings, **links),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="t2i/x"),
        "9": node("LoraLoader", model=["1", 0], clip=["1", 1], lora_name="l.pt", strength_model=1, strength_clip=1),
    }


def _make_models(standin: StandIn) -> None:
    Path(standin.folders.base, "models", "checkpoints", "sd.safetensors").write_bytes(b"x")
    Path(standin.folders.base, "models", "loras", "l.pt").write_bytes(b"x")


async def test_text_to_image_is_the_same_for_the_same_seed_and_text(local: Comfy, standin: StandIn) -> None:
    _make_models(standin)
    pictures: list[bytes] = []
    for seed, text in ((1, "cat"), (2, "cat"), (1, "dog"), (1, "cat")):
        graph = _text_to_image(seed, text)
        graph["7"]["inputs"]["_salt"] = len(pictures)
        entry = await local.run(graph, extra_data={"preview_method": "auto"})
        assert len(images_of(entry, "7")) == 2
        pictures.append(opened((await local.view(**images_of(entry, "7")[0])).body).tobytes())
    assert pictures[0] == pictures[3]
    assert len(set(pictures)) == 3


async def test_sampler_reports_steps_and_previews_when_asked(local: Comfy, standin: StandIn) -> None:
    _make_models(standin)
    async with local.socket() as socket:
        for seed, extra in ((3, {}), (4, {"preview_method": "none"}), (5, {"preview_method": "taesd"})):
            prompt_id = await local.queue(_text_to_image(seed, "x"), client_id=socket.sid, extra_data=extra)
            await socket.end_of(prompt_id)
    assert [each["type"] for each in socket.seen].count("progress") == 9
    assert len(socket.binary) == 3


async def test_picture_goes_through_a_latent_unchanged(local: Comfy, standin: StandIn) -> None:
    _make_models(standin)
    await local.put("a.png", png((9, 8, 7)))
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name="sd.safetensors"),
        "2": node("LoadImage", image="a.png"),
        "3": node("VAEEncode", pixels=["2", 0], vae=["1", 2]),
        "4": node("VAEDecode", samples=["3", 0], vae=["1", 2]),
        "5": node("PreviewImage", images=["4", 0]),
    }
    picture = opened((await local.view(**images_of(await local.run(graph), "5")[0])).body)
    assert picture.getpixel((0, 0)) == (9, 8, 7)


async def test_model_that_went_away_fails_when_it_runs(local: Comfy, standin: StandIn) -> None:
    _make_models(standin)
    async with local.socket() as socket:
        async with local.blocked():
            prompt_id = await local.queue(_text_to_image(6, "x"), client_id=socket.sid)
            Path(standin.folders.base, "models", "checkpoints", "sd.safetensors").unlink()
        error = await socket.event("execution_error", prompt_id)
    assert error["exception_type"] == "FileNotFoundError"


@pytest.mark.parametrize(
    ("inputs", "size"),
    [
        ({"width": 10, "height": 0, "crop": "disabled"}, (10, 7)),
        ({"width": 0, "height": 8, "crop": "disabled"}, (12, 8)),
        ({"width": 0, "height": 0, "crop": "disabled"}, (24, 16)),
        ({"width": 5, "height": 9, "crop": "center"}, (5, 9)),
    ],
)
async def test_image_scale(local: Comfy, inputs: dict[str, object], size: tuple[int, int]) -> None:
    await local.put("a.png", png())
    graph = loading("a.png")
    graph["2"] = node("ImageScale", image=["1", 0], upscale_method="lanczos", **inputs)
    graph["3"] = node("PreviewImage", images=["2", 0])
    entry = await local.run(graph)
    assert opened((await local.view(**images_of(entry, "3")[0])).body).size == size


async def test_image_batch_takes_the_size_of_the_first(local: Comfy) -> None:
    await local.put("a.png", png())
    await local.put("b.png", png(size=(50, 50)))
    graph = loading("a.png")
    graph["4"] = node("LoadImage", image="b.png")
    graph["3"] = node("ImageBatch", image1=["1", 0], image2=["4", 0])
    graph["2"]["inputs"]["images"] = ["3", 0]
    images = images_of(await local.run(graph))
    assert len(images) == 2
    assert opened((await local.view(**images[1])).body).size == (24, 16)


async def test_class_that_cannot_run_here_fails_like_a_node(local: Comfy) -> None:
    await local.put("a.png", png())
    await local.put("v.mp4", b"x")
    graphs = (
        {"1": node("OpenAIDalle3", prompt="x")},
        {"1": node("WebcamCapture", image="a.png", width=8, height=8, capture_on_queue=True)},
        {"1": node("LoadVideo", file="v.mp4")},
    )
    for graph in graphs:
        entry = await local.run(graph | {"2": node("PreviewAny", source=["1", 0])})
        error = dict(entry["status"]["messages"])["execution_error"]
        assert "does not run in the stand-in" in error["exception_message"]
        assert (error["node_id"], error["exception_type"]) == ("1", "RuntimeError")


async def test_any_value_is_shown_as_text(local: Comfy) -> None:
    values = {
        "1": node("PrimitiveInt", value=5),
        "2": node("PrimitiveFloat", value=1.5),
        "3": node("PrimitiveBoolean", value=True),
        "4": node("EmptyImage", width=1, height=1, batch_size=1, color=0),
    }
    graph = values | {f"p{key}": node("PreviewAny", source=[key, 0]) for key in values}
    outputs = (await local.run(graph))["outputs"]
    assert [outputs[f"p{key}"]["text"][0] for key in "123"] == ["5", "1.5", "True"]
    assert "Image" in outputs["p4"]["text"][0]
    literal = {"1": node("PreviewAny", source={"a": [1]})}
    assert (await local.run(literal))["outputs"]["1"] == {"text": ['{\n    "a": [\n        1\n    ]\n}']}


async def test_saved_json_text_is_indented_when_it_is_json(local: Comfy) -> None:
    for text, wanted in (('{"a":1}', b'{\n  "a": 1\n}'), ("{no", b"{no")):
        graph = {
            "1": node("PrimitiveString", value=text),
            "2": node("SaveText", text=["1", 0], filename_prefix="j", format="json"),
        }
        entry = await local.run(graph)
        saved = entry["outputs"]["2"]["files"][0]
        assert (await local.view(**saved)).body == wanted


async def test_old_results_are_dropped_beyond_the_limit(local: Comfy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standin.execution.MAX_CACHED", 2)
    entries = [await local.run(previewing(color)) for color in (1, 2, 3, 1)]
    assert dict(entries[-1]["status"]["messages"])["execution_cached"]["nodes"] == []


async def test_a_result_that_is_used_again_stays(local: Comfy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standin.execution.MAX_CACHED", 4)  # two for each
    entries = [await local.run(previewing(color)) for color in (1, 2, 1, 3, 1, 2)]
    cached = [dict(entry["status"]["messages"])["execution_cached"]["nodes"] for entry in entries]
    assert [bool(nodes) for nodes in cached] == [False, False, True, False, True, False]


async def test_history_is_bounded(local: Comfy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standin.promptqueue.MAX_HISTORY", 2)
    for color in range(5):
        await local.run(previewing(color))
    assert len((await local.get("/history")).json()) == 3


async def test_command_line_prints_a_banner_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: asyncio.Queue[str] = asyncio.Queue()
    fake = types.SimpleNamespace(add_signal_handler=lambda number, stop: stops.append(stop))
    stops: list[object] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("builtins.print", lambda text, **_: printed.put_nowait(text))
    monkeypatch.setattr(loop, "add_signal_handler", fake.add_signal_handler)
    task = loop.create_task(run(["--port", "0", "--base-directory", str(tmp_path), "--no-frontend"]))
    banner = await printed.get()
    assert "stand-in for ComfyUI, not ComfyUI" in banner
    url = next(word for word in banner.split() if word.startswith("http://"))
    async with aiohttp.ClientSession() as session, session.get(f"{url}/system_stats") as reply:
        assert "stand-in" in (await reply.json())["system"]["standin"]
    stop = stops[0]
    assert callable(stop)
    stop()
    await task

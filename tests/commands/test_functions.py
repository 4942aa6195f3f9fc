"""`comfygate functions`: proposed, listed, shown and called, as a person does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from proxy.commands.function_call import CallFailed, call_function
from proxy.steps import stored_files
from standin import StandIn
from tests.commands.cli import Said, aside, comfygate
from tests.contract.driver import png
from tests.harness import write_config
from tests.ports import free_port
from tests.proxy.functions.calls import PAINT, Caller, calling, write_functions
from tests.proxy.functions.test_converted import FUNCTIONS as CONVERTED
from tests.proxy.functions.test_converted import POLICIES
from tests.proxy.functions.test_converted import TENANTS as EVERYBODY
from tests.proxy.v2.assets.sdk import Standing, picture

PNG = png()[:8]


@pytest.fixture
def file(tmp_path: Path, comfy: StandIn) -> Path:
    return write_config(tmp_path, comfy.url)[0]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Standing]:
    async with calling(tmp_path / "gate") as found:
        yield found


async def functions(file: Path, *words: object) -> Said:
    return await aside("functions", *words, "--config", file)


async def test_a_function_is_proposed_and_is_good_as_it_is(file: Path, tmp_path: Path) -> None:
    workflow = tmp_path / "My Picture.json"
    workflow.write_bytes(orjson.dumps({"prompt": PAINT, "client_id": "x"}))
    said = await functions(file, "new", workflow)
    assert said.code == 0, said.err
    assert 'functions = ["my_picture"]' in said.out
    shown = await functions(file, "show", "my_picture")
    assert orjson.loads(shown.out)["title"] == "My picture"
    listed = await functions(file, "list")
    assert listed.out.startswith("my_picture  ")
    assert "(no tenant)" in listed.out
    # What is there is not overwritten, by either of its files.
    again = await functions(file, "new", workflow)
    assert again.code == 1
    assert "is there already" in again.err
    assert (await functions(file, "new", workflow, "--name", "other")).code == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a workflow in the API format"),
        (b'{"nodes": [], "links": []}', "save format"),
    ],
)
async def test_what_is_no_workflow(file: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "w.json").write_bytes(content)
    said = await functions(file, "new", tmp_path / "w.json")
    assert said.code == 1
    assert words in said.err
    assert not (tmp_path / "functions").exists()


async def test_what_new_is_asked_wrong(file: Path, tmp_path: Path) -> None:
    (tmp_path / "w.json").write_bytes(orjson.dumps(PAINT))
    assert "cannot be read" in (await functions(file, "new", tmp_path / "none.json")).err
    assert "is no name" in (await functions(file, "new", tmp_path / "w.json", "--name", "A b")).err


def test_without_comfyui_nothing_is_proposed(tmp_path: Path) -> None:
    port = free_port()
    file = write_config(tmp_path, f"http://127.0.0.1:{port}")[0]
    (tmp_path / "w.json").write_bytes(orjson.dumps(PAINT))
    said = comfygate("functions", "new", tmp_path / "w.json", "--config", file)
    assert said.code == 1
    assert "Its node classes are needed" in said.err


def test_what_there_is(file: Path, tmp_path: Path) -> None:
    assert "There is no function" in comfygate("functions", "list", "--config", file).err
    assert "There is no functions/x.toml" in comfygate("functions", "show", "x", "--config", file).err
    write_functions(tmp_path, {"broken": ("nonsense", PAINT)})
    said = comfygate("functions", "list", "--config", file)
    assert said.code == 1
    assert "functions/broken.toml: it is not TOML" in said.err
    file.write_text("nonsense")
    assert comfygate("functions", "list", "--config", file).code == 1


async def test_a_call_saves_what_it_makes(world: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYGATE_KEY", world.gate.keys["alice"])
    url, folder = world.gate.url, tmp_path / "out"
    said = await aside("functions", "run", "paint", "color=5", "prefix=007", "--url", url, "-o", folder)
    assert said.code == 0, said.err
    saved = [Path(line) for line in said.out.splitlines()]
    assert [file.name for file in saved] == ["007_00001_.png"], "a text stays one"
    assert saved[0].read_bytes().startswith(PNG)
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture())
    said = await aside("functions", "run", "wear", f"picture=@{photo}", "prefix=007", "--url", url, "-o", folder)
    assert [Path(line).name for line in said.out.splitlines()] == ["007_00002_.png"]


async def test_a_call_that_fails_says_why(world: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYGATE_KEY", world.gate.keys["alice"])

    async def said(*words: str) -> str:
        found = await aside("functions", "run", *words, "--url", world.gate.url, "-o", tmp_path)
        assert found.code == 1
        return found.err

    assert "404. There is no such function" in await said("none")
    assert "has no '='" in await said("paint", "color")
    assert "cannot be read" in await said("wear", "picture=@nothing.png")
    assert "422. The argument `width` is not accepted" in await said("paint", "width=1")
    assert "The argument `width`" in await said("paint", 'width={"a": 1}')
    (tmp_path / "broken.png").write_bytes(png()[:50])
    assert "The job has failed" in await said("wear", f"picture=@{tmp_path / 'broken.png'}")


async def test_a_gate_that_is_not_there(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(CallFailed, match="does not answer"):
        await call_function(f"http://127.0.0.1:{port}", "key", "paint", [], tmp_path)
    with pytest.raises(CallFailed, match=r"no address of a gate.*http://127\.0\.0\.1:8190"):
        await call_function(f"127.0.0.1:{port}", "key", "paint", [], tmp_path)


async def test_a_result_does_not_overwrite_a_file(world: Standing, tmp_path: Path) -> None:
    made = (await Caller(world.gate).run("paint", {"prefix": "same"}, Prefer="wait=60")).body["outputs"][0]["name"]
    (tmp_path / made.replace("00001", "00002")).write_bytes(b"mine")
    saved = await call_function(world.gate.url, world.gate.keys["alice"], "paint", ["prefix=same"], tmp_path)
    assert [file.name for file in saved] == [made.replace("00001_", "00002_ (2)")]
    assert (tmp_path / made.replace("00001", "00002")).read_bytes() == b"mine"


async def test_what_is_converted_is_saved_as_it_is_given(tmp_path: Path) -> None:
    async with calling(tmp_path / "gate", functions=CONVERTED, tenants=EVERYBODY, more=POLICIES) as world:
        url, key, folder = world.gate.url, world.gate.keys["alice"], tmp_path / "out"
        (file,) = await call_function(url, key, "paint", ["prefix=x"], folder)
        assert file.name == "x_00001_.webp"
        assert file.read_bytes()[8:12] == b"WEBP"
        with pytest.raises(CallFailed, match="is no picture"):
            await call_function(url, key, "talk", ["words=x"], folder)
        # One that is still being made is asked for again.
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stored_files, "CONVERTED_S", 0.0)
            calling_it = asyncio.ensure_future(call_function(url, key, "both", ["prefix=y"], folder))
            while b"conversion-pending" not in world.gate.log.getvalue() and not calling_it.done():
                await asyncio.sleep(0.01)
        saved = await calling_it
        assert sorted(each.suffix for each in saved) == [".jpg", ".png", ".webp"]

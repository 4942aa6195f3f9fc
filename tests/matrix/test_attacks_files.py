"""Mallory reads and writes by name: /view, userdata, workflow inputs, save prefixes. Alice's files stay hers, and unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.driver import Graph, empty_image, node
from tests.matrix.guard import nothing_else_changes
from tests.matrix.people import NUMBERS, Listener, png, seen, told, unique
from tests.matrix.world import World

WORD, NO_WORD = unique("victim"), unique("nobody")  # a real ComfyUI keeps what an earlier run uploaded
SECRET_TEXT = "alices own words"


def paths(word: str) -> list[str]:
    """Ways to write alice's file. The second word is of a file that is not there."""
    name = f"{word}.png"
    return [
        name,
        f"tenants/alice/{name}",
        f"/tenants/alice/{name}",
        f"../alice/{name}",
        f"./../alice/{name}",
        f"../../tenants/alice/{name}",
        f"tenants/mallory/../alice/{name}",
        f"tenants/mallory/tenants/alice/{name}",
        f"x/../../alice/{name}",
        f"..\\alice\\{name}",
        f"tenants\\alice\\{name}",
        f"tenants//alice/{name}",
        f"tenants/./alice/{name}",
        f"TENANTS/ALICE/{name}",
        f"Tenants/alice/{name}",
        f"tenants/alice./{name}",
        f"tenants/alice /{name}",
        f"%2e%2e/alice/{name}",
        f"..%2falice%2f{name}",
        f"\uff0e\uff0e/alice/{name}",
        f"tenants\u2215alice\u2215{name}",
        f"tenants/al\u200bice/{name}",
        f"C:tenants/alice/{name}",
        f"file:///tenants/alice/{name}",
        f"{name}\x00.png",
        f"{name}\n",
    ]


def annotated(word: str) -> list[str]:
    name = f"tenants/alice/{word}.png"
    return [
        f"{name} [input]",
        f"{name} [output]",
        f"{name}[output]",
        f"{name}Z[output]",
        f"{name} [output] ",
        f"{name} [temp]",
        f"{name} [input] [output]",
        f"../alice/{word}.png [input]",
        f"{word}.png [output]",
        f"{word}.png [Output]",
        "blake3:" + "ab" * 32,
        "blake3:" + "ab" * 32 + " [input]",
    ]


def views(word: str, base: str) -> list[str]:
    """Queries of /view."""
    found = [f"filename={quote(path, safe='')}" for path in [*paths(word), *annotated(word)]]
    for folder in (
        "tenants/alice",
        "../alice",
        "/tenants/alice",
        f"{base}/output/tenants/alice",
        "tenants%2Falice",
        ".",
    ):
        found.append(f"filename={word}.png&subfolder={quote(folder, safe='')}")
    found = [f"{query}&type={kind}" for query in found for kind in ("input", "output", "temp")]
    return [
        *found,
        f"filename=x.png&filename={word}.png&subfolder=&subfolder=tenants/alice",
        f"filename={word}.png&subfolder=tenants/alice&subfolder=",
        f"filename={word}.png&subfolder=../alice&type=output&preview=webp",
        f"filename={word}.png&subfolder=tenants/alice&channel=rgb",
        f"filename={word}.png&type=models",
        f"filename={word}.png&type=",
        f"subfolder=tenants/alice/{word}.png",
        f"filename=&subfolder=tenants/alice/{word}.png",
        f"filename={word}.png;subfolder=tenants/alice",
        f"FILENAME={word}.png&subfolder=tenants/alice",
        f"filename[]={word}.png&subfolder=tenants/alice",
    ]


async def settle_victim(world: World) -> Listener:
    for fields in ({"type": "input"}, {"type": "output"}, {"type": "temp"}):
        await world.alice.photo(f"{WORD}.png", overwrite="true", **fields)
    for name in (f"{WORD}.json", f"workflows%2F{WORD}.json"):
        assert (await world.alice.post(f"/userdata/{name}", data=SECRET_TEXT.encode())).status == 200
    world.mallory.secrets.add(SECRET_TEXT.encode())
    return await world.mallory.connect(unique("sid"))


async def test_no_query_of_view_shows_a_foreign_file_or_that_there_is_one(world: World, tmp_path: Path) -> None:
    await settle_victim(world)
    for route in ("/view", "/api/view"):
        for foreign, absent in zip(views(WORD, str(tmp_path)), views(NO_WORD, str(tmp_path)), strict=True):
            shown = [seen(await world.mallory.get(f"{route}?{query}")) for query in (foreign, absent)]
            assert 400 <= shown[0][0] < 500, foreign
            assert shown[0][1:] == (shown[1][1], shown[1][2].replace(NO_WORD.encode(), WORD.encode())), foreign


def loads(word: str) -> list[Any]:
    return [
        *paths(word),
        *annotated(word),
        {"__value__": f"tenants/alice/{word}.png"},
        {"__value__": {"__value__": f"../alice/{word}.png"}},
        {"__value__": [f"tenants/alice/{word}.png"]},
        [f"tenants/alice/{word}.png"],
        [f"tenants/alice/{word}.png", 0],
        {"filename": f"{word}.png", "subfolder": "tenants/alice", "type": "input"},
        ["text", 0],
        ["joined", 0],
        0,
        True,
        "",
    ]


def loading_graph(class_type: str, value: Any, word: str) -> Graph:
    """text and joined: links to nodes that make the path when they run."""
    inputs = {"image": value} | ({"channel": "alpha"} if class_type == "LoadImageMask" else {})
    return {
        "text": node("PrimitiveString", value=f"tenants/alice/{word}.png"),
        "joined": node("StringConcatenate", string_a="../alice/", string_b=f"{word}.png", delimiter=""),
        "1": node(class_type, **inputs),
        "2": node("MaskPreview", mask=["1", 0])
        if class_type == "LoadImageMask"
        else node("PreviewImage", images=["1", 0]),
    }


@pytest.mark.parametrize("class_type", ["LoadImage", "LoadImageMask", "LoadImageOutput"])
async def test_no_workflow_loads_a_foreign_file_or_tells_that_there_is_one(world: World, class_type: str) -> None:
    listener = await settle_victim(world)
    for foreign, absent in zip(loads(WORD), loads(NO_WORD), strict=True):
        shown = []
        for value, word in ((foreign, WORD), (absent, NO_WORD)):
            answer = await world.mallory.submit(loading_graph(class_type, value, word), client_id=listener.sid)
            if answer.status == 200:  # an empty name passes ComfyUI's check and fails when it runs
                await listener.end_of(answer.json()["prompt_id"])
                assert answer.json()["node_errors"] or value == "", f"{value!r}: {told(answer)}"
                continue
            assert answer.status in (400, 403), f"{value!r}: {told(answer)}"
            status, fields, body = seen(answer)
            shown.append((status, fields, body.replace(NO_WORD.encode(), WORD.encode())))
        assert len(set(shown)) <= 1, f"{foreign!r}"
    executed = [message for message in listener.seen if message["type"] == "executed"]
    assert not executed, "nothing was loaded"


def prefixes(base: str) -> list[Any]:
    return [
        "tenants/alice/planted",
        "../alice/planted",
        "./../alice/planted",
        "x/../../alice/planted",
        "tenants/mallory/../alice/planted",
        "/tenants/alice/planted",
        "/tmp/planted",
        f"{base}/output/tenants/alice/planted",
        "..\\alice\\planted",
        "tenants\\alice\\planted",
        "%width%/../../alice/planted",
        "%year%/../%month%/../../alice/planted",
        ".%width%./alice/planted",
        "%.%./planted",
        "../%date:yyyy%/planted",
        "checkpoints/planted",
        "",
        ".",
        "..",
        "planted/",
        "planted/..",
        "tenants/alice/",
        "tenants/mallory",
        "tenants/mallory/",
        "tenants/mallory/own",
        "con",
        "aux.png",
        "planted.",
        "plan\x00ted",
        "plan\nted",
        "~/planted",
        "C:planted",
        "\uff0e\uff0e/alice/planted",
        "a" * 250,
        "planted [output]",
        {"__value__": "../alice/planted"},
        ["text", 0],
        ["joined", 0],
        5,
        None,
    ]


async def test_no_prefix_saves_outside_the_tenants_folder(world: World) -> None:
    listener, base = await settle_victim(world), world.base
    world.mallory.own_words.add(b"tenants/alice")  # a folder of her own may have this name
    for prefix in prefixes(str(base)):
        graph = {
            "text": node("PrimitiveString", value="tenants/alice/planted"),
            "joined": node("StringConcatenate", string_a="../ali", string_b="ce/planted", delimiter=""),
            "1": empty_image(NUMBERS["mallory"]),
            "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
            "3": node("SaveText", text="planted", filename_prefix=prefix, format="txt"),
        }
        with nothing_else_changes(base, "mallory"):
            answer = await world.mallory.submit(graph, client_id=listener.sid)
            assert answer.status in (200, 400, 403), f"{prefix!r}: {told(answer)}"
            if answer.status != 200:
                continue
            prompt_id = answer.json()["prompt_id"]
            await listener.end_of(prompt_id)
        outputs = (await world.mallory.history(prompt_id))["outputs"]
        is_folder_of_her_own = prefix == ["text", 0] or "tenants/alice" in str(prefix).replace("\\", "/")
        for item in [*outputs["2"]["images"], *outputs["3"]["files"]]:
            assert not {"..", "tenants"} & set(item["subfolder"].split("/")) or is_folder_of_her_own, item
            assert (await world.mallory.file(item)).status == 200


async def test_classes_with_folders_of_their_own_are_not_for_tenants(world: World) -> None:
    for class_type in ("SaveImageDataSetToFolder", "SaveImageTextDataSetToFolder", "LoadImageDataSetFromFolder"):
        graph = {
            "1": empty_image(),
            "2": node(class_type, images=["1", 0], folder_name="x", filename_prefix="x", mode="overwrite"),
        }
        answer = await world.mallory.submit(graph)
        assert answer.status == 403, told(answer)
        assert answer.json()["node_errors"]["2"]["errors"][0]["type"] == "class-not-permitted"


def userdata(word: str, base: str) -> list[str]:
    """Names in the path, as they are sent."""
    name = f"{word}.json"
    plain = [
        f"tenants/alice/{name}",
        f"../alice/{name}",
        f"../../tenants/alice/{name}",
        f"./../alice/{name}",
        f"workflows/../../alice/{name}",
        f"/tenants/alice/{name}",
        f"{base}/user/default/tenants/alice/{name}",
        f"..\\alice\\{name}",
        f"tenants/mallory/../alice/{name}",
        "comfy.settings.json",
        "COMFY.SETTINGS.JSON",
        "comfy.settings.json ",
        "../../comfy.settings.json",
        "../../../../main.py",
        f"{name}\x00",
        ".",
        "..",
        "../alice",
    ]
    once = [quote(path, safe="") for path in plain]
    twice = [quote(path, safe="") for path in once]
    return [
        *once,
        *twice,
        *(quote(path, safe="") for path in twice),
        "%",
        "%zz",
        "%25",
        "a%2525b",
        "%c0%ae%c0%ae%2falice",
    ]


async def test_no_name_of_userdata_leaves_the_tenants_folder(standing: World) -> None:
    world = standing
    base = world.base
    await settle_victim(world)
    mallory = world.mallory
    assert (await mallory.post("/userdata/own.json", data=b"{}")).status == 200
    for foreign, absent in zip(userdata(WORD, str(base)), userdata(NO_WORD, str(base)), strict=True):
        with nothing_else_changes(base, "mallory"):
            for method, form in (
                ("GET", "{}"),
                ("DELETE", "{}"),
                ("POST", "{}/move/stolen.json"),
                ("POST", "{}/move/stolen.json?overwrite=true&full_info=true"),
                ("POST", "own.json/move/{}?overwrite=false"),
                ("POST", "{}?overwrite=false"),
            ):
                shown = []
                for name in (foreign, absent):
                    await mallory.post("/userdata/own.json", data=b"{}")
                    answer = await mallory.call(method, f"/userdata/{form.format(name)}", data=b"{}")
                    shown.append(seen(answer))
                    if "overwrite=false" in form:  # both begin alike
                        await mallory.call("DELETE", f"/userdata/{name}")
                assert shown[0][0] == shown[1][0] < 500, f"{method} {form.format(foreign)}: {shown}"
    for name in (f"{WORD}.json", f"workflows%2F{WORD}.json"):
        assert (await world.alice.get(f"/userdata/{name}")).text() == SECRET_TEXT


async def test_no_list_of_userdata_names_a_foreign_file(world: World) -> None:
    await settle_victim(world)
    world.mallory.secrets.add(f"{WORD}.json".encode())
    for folder in (
        ".",
        "./",
        "..",
        "../alice",
        "tenants",
        "tenants/alice",
        "/",
        "workflows/../..",
        "",
        "%2e%2e",
        "*",
        "~",
    ):
        for flags in ("", "&recurse=true", "&recurse=true&full_info=true", "&split=true&recurse=true"):
            for route, field in (("/userdata", "dir"), ("/api/userdata", "dir"), ("/v2/userdata", "path")):
                answer = await world.mallory.get(f"{route}?{field}={quote(folder, safe='')}{flags}")
                assert answer.status in (200, 400, 404), told(answer)


async def test_a_moved_folder_stays_in_the_tenants_folder(world: World) -> None:
    await settle_victim(world)
    mallory = world.mallory
    stem = unique("dir")
    assert (await mallory.post(f"/userdata/{stem}%2Fa.json", data=b"{}")).status == 200
    answer = await mallory.post(f"/userdata/{stem}/move/moved-{stem}")
    assert answer.json() == f"moved-{stem}", told(answer)
    assert (await mallory.get(f"/userdata?dir=moved-{stem}")).json() == ["a.json"]
    for target in ("..%2Falice", "tenants%2Falice", "..", ".", "%2e%2e%2f", ""):
        answer = await mallory.post(f"/userdata/moved-{stem}/move/{target}")
        assert answer.status in (200, 400, 404), told(answer)
        if answer.status == 200:  # her own folder of that name
            assert (await mallory.get(f"/userdata/{target}%2Fa.json")).status == 200
            await mallory.post(f"/userdata/{target}/move/moved-{stem}")
    assert (await mallory.get(f"/userdata?dir=moved-{stem}")).json() == ["a.json"]
    assert (await world.alice.get(f"/userdata/{WORD}.json")).text() == SECRET_TEXT


async def test_lists_of_the_catalogue_name_no_foreign_file(world: World) -> None:
    """ComfyUI lists what lies in the roots and all folders of the input folder."""
    await settle_victim(world)
    name = unique("dropped") + ".png"
    await world.direct.upload(name, png((1, 1, 1)))
    world.mallory.secrets |= {name.encode(), f"{WORD}.png".encode()}
    for path in (
        "/object_info",
        "/api/object_info",
        "/object_info/LoadImage",
        "/object_info/LoadImageMask",
        "/object_info/LoadImageOutput",
        "/object_info/LoadImageDataSetFromFolder",
        "/object_info/Load3D",
        "/internal/files/input",
        "/internal/files/output",
        "/internal/files/temp",
        "/models",
        "/models/checkpoints",
        "/experiment/models/checkpoints",
        "/internal/folder_paths",
        "/system_stats",
        "/internal/logs",
        "/internal/logs/raw",
    ):
        answer = await world.mallory.get(path)
        assert answer.status in (200, 403), told(answer)


async def test_a_refused_choice_lists_no_foreign_folder(standing: World) -> None:
    """ComfyUI names the choices that there are; those of a folder input are everybody's folders."""
    file = standing.running.config_file
    text = file.read_text().replace('allow = ["@core-image"', 'allow = ["LoadImageDataSetFromFolder", "@core-image"')
    file.write_text(text)
    assert await standing.running.gate.reload(file)
    folder = unique("folder")
    await standing.alice.photo("x.png", subfolder=folder)
    await standing.running.gate.dependencies.catalogue.renew()
    standing.mallory.secrets.add(folder.encode())
    assert folder in (await standing.direct.get("/object_info/LoadImageDataSetFromFolder")).text()
    for name in ("absent", f"../alice/{folder}", "tenants/alice"):
        graph = {"1": node("LoadImageDataSetFromFolder", folder=name), "2": node("PreviewImage", images=["1", 0])}
        answer = await standing.mallory.submit(graph)
        assert answer.status in (400, 403), told(answer)
    shown = (await standing.mallory.get("/object_info/LoadImageDataSetFromFolder")).json()
    assert shown["LoadImageDataSetFromFolder"]["input"]["required"]["folder"][1]["options"] == []

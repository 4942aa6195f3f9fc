"""Names that people give, at every door: they go in, ComfyUI has them in one safe spelling, and they come out as they went in."""

from __future__ import annotations

import io
from urllib.parse import quote

import pytest
from PIL import Image

from policy.spelling import MARK
from tests.contract.driver import empty_image, node
from tests.matrix.multipart import CONTENT_TYPE, body, field, part
from tests.matrix.people import COLORS, png, told
from tests.matrix.world import World

NAMES = [
    "SD 3.5 - 16:9",
    "16\uff1a9\uff1f",
    "50% denoise",
    "%2e%2e",
    "a\uff0fb",
    "\uff0e\uff0e",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "con",
    "~=con",
    "blake3:00",
    "x" * 240,
]
MINE = png(COLORS["alice"])


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), COLORS["alice"]).save(stream, "JPEG")
    return stream.getvalue()


def saving(image: str, prefix: str) -> dict[str, object]:
    return {"1": node("LoadImage", image=image), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


@pytest.mark.parametrize("stem", NAMES)
async def test_a_name_comes_back_as_it_went_in(world: World, stem: str) -> None:
    alice, name = world.alice, f"{stem}.png"
    stored = await alice.photo(name, subfolder="./odd/")
    assert stored == {"name": name, "subfolder": "odd", "type": "input"}
    answer = await alice.view(name, subfolder="odd", type="input")
    assert (answer.status, answer.body) == (200, MINE)
    assert MARK.encode() not in answer.headers.get("Content-Disposition", "").encode() or stem.startswith(MARK)
    entry = await alice.run(saving(f"odd/{name}", f"odd/{stem[:200]}"))
    assert entry["prompt"][2]["1"]["inputs"]["image"] == f"odd/{name}"
    assert entry["prompt"][2]["2"]["inputs"]["filename_prefix"] == f"odd/{stem[:200]}"
    [saved] = entry["outputs"]["2"]["images"]
    assert saved["subfolder"] == "odd"
    assert (await alice.file(saved)).status == 200
    for kind in ("input", "output"):
        assert (await world.mallory.view(saved["filename"], subfolder="odd", type=kind)).status == 404
    again = await alice.run(saving(f"tenants/alice/odd/{saved['filename']} [output]", "again"))
    assert again["status"]["completed"]


@pytest.mark.parametrize("stem", NAMES)
async def test_a_saved_workflow_comes_back_under_its_name(world: World, stem: str) -> None:
    alice, path = world.alice, f"workflows/{stem}.json"
    target = f"/userdata/{quote(path, safe='')}"
    assert (await alice.post(target, data=b'{"a": 1}')).json() == path
    assert (await alice.get(target)).body == b'{"a": 1}'
    assert f"{stem}.json" in (await alice.get("/userdata?dir=workflows")).json()
    assert ["workflows", f"{stem}.json"] in [
        each[1:] for each in (await alice.get("/userdata?dir=.&recurse=true&split=true")).json()
    ]
    tree = (await alice.get("/v2/userdata?path=workflows")).json()
    assert {"name": f"{stem}.json", "path": path} in [{key: each[key] for key in ("name", "path")} for each in tree]
    moved = await alice.post(f"{target}/move/{quote(f'moved/{stem}.json', safe='')}")
    assert moved.json() == f"moved/{stem}.json"
    assert (await world.mallory.get(f"/userdata/{quote(f'moved/{stem}.json', safe='')}")).status == 404
    assert (await alice.call("DELETE", f"/userdata/{quote(f'moved/{stem}.json', safe='')}")).status == 204


@pytest.mark.parametrize(
    "client_id", ["{6F9619FF-8B86}", "my client", "user/abc", "http://127.0.0.1:8188", "~", "\u5de5\u4f5c"]
)
async def test_events_reach_a_client_of_any_id(world: World, client_id: str) -> None:
    listener = await world.alice.connect(quote(client_id, safe=""))
    assert listener.sid == client_id
    prompt_id = await world.alice.queue(empty(), client_id=client_id)
    await listener.end_of(prompt_id)
    entry = await world.alice.history(prompt_id)
    assert entry["prompt"][3]["client_id"] == client_id
    await listener.close()


def empty(prefix: object = "x") -> dict[str, object]:
    return {
        "text": node("PrimitiveString", value="proj"),
        "joined": node("StringConcatenate", string_a=["text", 0], string_b="x", delimiter="/"),
        "1": empty_image(),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


@pytest.mark.parametrize(
    ("prefix", "subfolder", "stem"),
    [
        ("proj/", "", "proj"),
        ("", "", "ComfyUI"),
        ("./proj", "", "proj"),
        ("proj\\x", "proj", "x"),
        ("run 10:22", "", "run 10:22"),
        (["text", 0], "", "proj"),
        (["joined", 0], "proj", "x"),
    ],
)
async def test_a_prefix_is_read_as_people_write_it(world: World, prefix: object, subfolder: str, stem: str) -> None:
    entry = await world.alice.run(empty(prefix))
    [saved] = entry["outputs"]["2"]["images"]
    assert (saved["subfolder"], saved["filename"].rsplit("_", 2)[0]) == (subfolder, stem)
    assert (await world.alice.file(saved)).status == 200


async def test_a_name_that_was_there_before_the_gate_is_listed_and_read(standing: World) -> None:
    assert standing.base is not None, "the stand-in's folder is known"
    folder = standing.base / "user/default/tenants/alice/workflows"
    folder.mkdir(parents=True)
    names = ["SD 3.5 - 16:9.json", "50% denoise.json", "16\uff1a9.json", "plain.json", "a ", "x\u200dy"]
    for name in names:
        (folder / name).write_text("{}")
    assert sorted((await standing.alice.get("/userdata?dir=workflows")).json()) == sorted(names)
    for name in names:
        answer = await standing.alice.get(f"/userdata/{quote(f'workflows/{name}', safe='')}")
        assert (answer.status, answer.text()) == (200, "{}"), name
    (folder / "con").write_text("{}")
    assert "con" in (await standing.alice.get("/userdata?dir=workflows")).json()


@pytest.mark.parametrize("name", ["0f8e.png", "blob", "photo.jfif", "photo"])
async def test_the_content_of_an_upload_decides(world: World, name: str) -> None:
    stored = await world.alice.upload(name, jpeg())
    assert (stored.status, stored.json()["name"]) == (200, name), told(stored)
    answer = await world.alice.view(name, type="input")
    assert (answer.body, answer.headers["X-Content-Type-Options"]) == (jpeg(), "nosniff")
    entry = await world.alice.run(saving(name, "loaded"))
    assert entry["status"]["completed"]


async def test_parts_as_clients_send_them(world: World) -> None:
    parts = [
        part('name="overwrite"; filename="overwrite"', b"true", "Content-Transfer-Encoding: 8bit"),
        part('name="type"; filename="type"', b"input"),
        field("type", "input"),
        part('name="image"; filename="p.png"', MINE, "Content-Type: image/png", "Content-Transfer-Encoding: binary"),
    ]
    for _ in range(2):
        answer = await world.alice.post("/upload/image", data=body(*parts), headers=CONTENT_TYPE)
        assert (answer.status, answer.json()) == (200, {"name": "p.png", "subfolder": "", "type": "input"}), told(
            answer
        )
    for encoding in ("base64", "quoted-printable", "binary, base64"):
        coded = part('name="image"; filename="p.png"', MINE, f"Content-Transfer-Encoding: {encoding}")
        assert (await world.alice.post("/upload/image", data=body(coded), headers=CONTENT_TYPE)).status == 400
    differing = body(field("type", "input"), part('name="type"; filename="t"', b"output"), parts[-1])
    assert (await world.alice.post("/upload/image", data=differing, headers=CONTENT_TYPE)).status == 400


async def test_a_folder_that_is_none_of_models_is_empty_whatever_lies_in_it(world: World) -> None:
    """Clients ask for all folders that they know, and stop at the first 404; nothing but the status and the list may differ from an empty one."""
    for folder in ("custom_nodes", "configs"):
        for prefix in ("", "/api"):
            answer = await world.mallory.get(f"{prefix}/models/{folder}")
            assert (answer.status, answer.json()) == (200, [])
        assert (await world.mallory.get(f"/experiment/models/{folder}")).json() == []

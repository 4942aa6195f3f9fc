"""B.8: the execution cache is shared by everybody, and what keeps results apart."""

from __future__ import annotations

import json
import random
from typing import Any

from .driver import Comfy, Graph, empty_image, images_of, loading, node, opened, png, unique


def _cached(entry: dict[str, Any]) -> list[str]:
    nodes: list[str] = dict(entry["status"]["messages"])["execution_cached"]["nodes"]
    return sorted(nodes)


def _graph(prefix: str, color: int) -> Graph:
    return {
        "1": empty_image(color),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix=f"{prefix}/x"),
        "4": node("PreviewImage", images=["2", 0]),
    }


def _color() -> int:
    return random.randrange(1 << 24)


async def test_same_graph_gives_the_first_ones_files_and_workflow(comfy: Comfy) -> None:
    graph = _graph(unique(), _color())
    note = {"extra_pnginfo": {"workflow": {"id": "a", "note": "secret of the first"}}}
    first = await comfy.run(graph, extra_data=note)
    second = await comfy.run(graph, extra_data={"extra_pnginfo": {"workflow": {"id": "b"}}})
    assert _cached(second) == ["1", "2", "3", "4"]
    assert second["outputs"] == first["outputs"]
    assert second["meta"] == first["meta"]
    shown = opened((await comfy.view(**images_of(second, "3")[0])).body)
    assert json.loads(shown.info["workflow"])["note"] == "secret of the first"


async def test_cached_outputs_are_announced_as_executed(comfy: Comfy) -> None:
    graph = _graph(unique(), _color())
    first = await comfy.run(graph)
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(graph, client_id=socket.sid)
        await socket.end_of(prompt_id)
    executed = {each["data"]["node"]: each["data"]["output"] for each in socket.seen if each["type"] == "executed"}
    assert executed == first["outputs"]
    assert "executing" not in socket.types(prompt_id)[:-1]


async def test_node_ids_and_order_do_not_matter(comfy: Comfy) -> None:
    prefix, color = unique(), _color()
    first = await comfy.run(_graph(prefix, color))
    renamed = {
        "40": node("PreviewImage", images=["20", 0]),
        "30": node("SaveImage", images=["20", 0], filename_prefix=f"{prefix}/x"),
        "20": node("ImageInvert", image=["10", 0]),
        "10": empty_image(color),
    }
    second = await comfy.run(renamed)
    assert _cached(second) == ["10", "20", "30", "40"]
    assert second["outputs"]["30"] == first["outputs"]["3"]


async def test_results_of_an_older_prompt_are_kept(local: Comfy) -> None:
    # A real 0.33 with less than 128 GB of memory drops them at the next prompt (ram_release in caching.py); with more
    # it keeps them. The stand-in shows the case that is worse for tenants.
    graph = _graph(unique(), _color())
    await local.run(graph)
    await local.run(_graph(unique(), _color()))
    assert _cached(await local.run(graph)) == ["1", "2", "3", "4"]


async def test_undeclared_literal_salts_the_node_and_what_follows(comfy: Comfy) -> None:
    prefix, color = unique(), _color()
    first = await comfy.run(_graph(prefix, color))
    salted = _graph(prefix, color)
    for output in ("3", "4"):
        salted[output]["inputs"]["_salt"] = "tenant-b"
    second = await comfy.run(salted)
    assert _cached(second) == ["1", "2"]
    for output in ("3", "4"):
        assert images_of(second, output) != images_of(first, output)
    assert _cached(await comfy.run(salted)) == ["1", "2", "3", "4"]


async def test_salt_of_an_ancestor_salts_everything_after_it(comfy: Comfy) -> None:
    prefix, color = unique(), _color()
    await comfy.run(_graph(prefix, color))
    salted = _graph(prefix, color)
    salted["1"]["inputs"]["_salt"] = {"nested": [1, "b"]}
    assert _cached(await comfy.run(salted)) == []


async def test_salt_shows_in_the_embedded_prompt_and_in_history(comfy: Comfy) -> None:
    graph = _graph(unique(), _color())
    graph["3"]["inputs"]["_salt"] = "visible"
    entry = await comfy.run(graph)
    assert entry["prompt"][2]["3"]["inputs"]["_salt"] == "visible"
    image = opened((await comfy.view(**images_of(entry, "3")[0])).body)
    assert json.loads(image.info["prompt"])["3"]["inputs"]["_salt"] == "visible"


async def test_changed_input_file_is_not_served_from_the_cache(comfy: Comfy) -> None:
    name = unique() + ".png"
    await comfy.put(name, png((1, 2, 3)), overwrite="true")
    assert _cached(await comfy.run(loading(name))) == []
    assert _cached(await comfy.run(loading(name))) == ["1", "2"]
    await comfy.put(name, png((3, 2, 1)), overwrite="true")
    assert _cached(await comfy.run(loading(name))) == []


async def test_fingerprint_given_by_the_client_is_trusted(comfy: Comfy) -> None:
    name = unique() + ".png"
    graph = loading(name)
    graph["1"]["is_changed"] = ["mine"]
    await comfy.put(name, png((1, 2, 3)), overwrite="true")
    await comfy.run(graph)
    await comfy.put(name, png((3, 2, 1)), overwrite="true")
    assert _cached(await comfy.run(graph)) == ["1", "2"]


async def test_node_that_always_changes_is_never_cached(comfy: Comfy) -> None:
    graph = {
        "1": empty_image(_color()),
        "2": node("SlowProgress", image=["1", 0], seconds=0, steps=1),
        "3": node("PreviewImage", images=["2", 0]),
    }
    await comfy.run(graph)
    assert _cached(await comfy.run(graph)) == ["1"]


async def test_new_style_node_that_knows_its_id_is_shared_all_the_same(comfy: Comfy) -> None:
    # ComfyUI means to tell such nodes apart by their id, and misses new-style ones (include_unique_id_in_input).
    # In 0.3.64 this class is an old-style one.
    color = _color()

    def graph(node_id: str) -> Graph:
        return {
            "1": empty_image(color),
            node_id: node("GetImageSize", image=["1", 0]),
            "p": node("PreviewAny", source=[node_id, 1]),
        }

    await comfy.run(graph("a"))
    assert _cached(await comfy.run(graph("b"))) == (["1", "b", "p"] if comfy.is_current else ["1"])


async def test_preview_names_share_a_stem_and_count_up(comfy: Comfy) -> None:
    def graph() -> Graph:
        return {"1": empty_image(_color()), "p": node("PreviewImage", images=["1", 0])}

    # Queued together in front of everything: the stem lives only as long as successive prompts have that node id.
    async with comfy.socket() as socket:
        async with comfy.blocked():
            ids = [await comfy.queue(graph(), client_id=socket.sid, number=-1e5 + n) for n in range(2)]
        await socket.end_of(ids[1])
    names = [images_of(await comfy.history(prompt_id), "p")[0]["filename"] for prompt_id in ids]
    stem = names[0].rsplit("_", 2)[0]
    assert stem.startswith("ComfyUI_temp_")
    assert len(stem) == len("ComfyUI_temp_") + 5
    assert names == [f"{stem}_00001_.png", f"{stem}_00002_.png"]

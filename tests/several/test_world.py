"""tests/several/world.py: the gate starts before several ComfyUIs, and with one gone."""

from __future__ import annotations

from pathlib import Path

from tests.several.world import FIRST, SECOND, SeveralWorld, put_model, several


async def test_a_job_of_the_usual_kind_runs(two: SeveralWorld) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    answer = await two.gate.json("POST", "/prompt", "alice", json={"prompt": graph})
    assert answer["node_errors"] == {}


async def test_saved_workflows_are_of_the_first(two: SeveralWorld) -> None:
    two.comfyuis[SECOND].received.clear()
    assert await two.gate.status("GET", "/userdata?dir=workflows", "alice") in (200, 404)
    assert not [each for each in two.comfyuis[SECOND].received if "userdata" in each.raw_path]


async def test_the_gate_answers_while_another_one_is_gone(tmp_path: Path) -> None:
    async with several(tmp_path, has_directories=False) as world:
        await world.stop(SECOND)
        assert await world.gate.status("GET", "/settings", "alice") == 200
        await world.start(SECOND)


async def test_each_has_models_of_its_own(tmp_path: Path) -> None:
    async with several(tmp_path, is_shared=True) as world:
        put_model(world.comfyuis[SECOND], "only.safetensors")
        assert world.comfyuis[SECOND].folders.model_files("checkpoints") == ["only.safetensors"]
        assert world.comfyuis[FIRST].folders.model_files("checkpoints") == []

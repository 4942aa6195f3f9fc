"""B.1 and B.3: what POST /prompt accepts, and its replies."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .driver import Comfy, Graph, empty_image, errors_of, node, previewing, saving, unique

BAD_ID_DETAILS = "prompt_id must be a UUID string"


def _broken(**inputs: Any) -> Graph:
    return {"1": empty_image(**inputs), "2": node("PreviewImage", images=["1", 0])}


async def test_accepted_prompt_is_answered_with_id_number_and_no_errors(comfy: Comfy) -> None:
    reply = (await comfy.submit(previewing(1))).json()
    assert set(reply) == {"prompt_id", "number", "node_errors"}
    assert str(uuid.UUID(reply["prompt_id"])) == reply["prompt_id"]
    assert reply["node_errors"] == {}


async def test_numbers_count_up_and_front_is_negative(comfy: Comfy) -> None:
    first = (await comfy.submit(previewing(2))).json()["number"]
    second = (await comfy.submit(previewing(3))).json()["number"]
    front = (await comfy.submit(previewing(4), front=True)).json()["number"]
    assert second > first
    assert front < -first
    assert (await comfy.submit(previewing(5), front="no")).json()["number"] < front
    assert (await comfy.submit(previewing(6), front=False)).json()["number"] > second
    assert (await comfy.submit(previewing(7), number="-3.5")).json()["number"] == -3.5
    assert (await comfy.submit(previewing(8), number=True)).json()["number"] == 1.0
    assert (await comfy.submit(previewing(9), number=3, front=True)).json()["number"] == 3.0


@pytest.mark.parametrize("number", [None, "abc", [], {}])
async def test_number_that_is_none_is_500(comfy: Comfy, number: Any) -> None:
    assert (await comfy.submit(previewing(1), number=number)).status == 500


async def test_one_invalid_output_of_two_is_accepted_with_node_errors(comfy: Comfy) -> None:
    graph = {
        "1": empty_image(),
        "3": node("SaveImage", filename_prefix="x"),
        "4": node("PreviewImage", images=["1", 0]),
    }
    answer = await comfy.submit(graph)
    assert answer.status == 200
    assert answer.json()["node_errors"]["3"] == {
        "errors": [
            {
                "type": "required_input_missing",
                "message": "Required input is missing",
                "details": "images",
                "extra_info": {"input_name": "images"},
            }
        ],
        "dependent_outputs": ["3"],
        "class_type": "SaveImage",
    }


@pytest.mark.parametrize("body", [{}, {"client_id": "x"}, [], [{"prompt": {}}]])
async def test_body_without_prompt_is_no_prompt(comfy: Comfy, body: Any) -> None:
    answer = await comfy.post("/prompt", json=body)
    text = "No prompt provided"
    error = {"type": "no_prompt", "message": text, "details": text, "extra_info": {}}
    assert (answer.status, answer.json()) == (400, {"error": error, "node_errors": {}})


@pytest.mark.parametrize("graph", [{}, {"1": empty_image()}])
async def test_graph_without_outputs_is_refused(comfy: Comfy, graph: Graph) -> None:
    answer = await comfy.submit(graph)
    error = {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {}}
    assert (answer.status, answer.json()) == (400, {"error": error, "node_errors": {}})


WORKFLOW_OF_THE_UI = {"nodes": [{"id": 1, "type": "SaveImage"}], "links": [], "version": 0.4}


@pytest.mark.parametrize("body", [b"", b"{", b'{"prompt": null}', b'{"prompt": {"1": 5}}', b"5"])
async def test_body_of_wrong_type_is_500(comfy: Comfy, body: bytes) -> None:
    assert (await comfy.post("/prompt", data=body)).status == 500


@pytest.mark.parametrize("graph", [[], {"1": []}])
async def test_list_for_an_object_is_500(comfy: Comfy, graph: Any) -> None:
    assert (await comfy.submit(graph)).status == (500 if comfy.is_current else 400)


async def test_workflow_of_the_web_ui_is_500_inside_and_no_prompt_outside(comfy: Comfy) -> None:
    assert (await comfy.submit(WORKFLOW_OF_THE_UI)).status == (500 if comfy.is_current else 400)
    assert (await comfy.post("/prompt", json=WORKFLOW_OF_THE_UI)).json()["error"]["type"] == "no_prompt"


async def test_content_type_is_not_checked(comfy: Comfy) -> None:
    assert (await comfy.post("/prompt", data=b"{}", headers={"Content-Type": "image/png"})).status == 400


async def test_missing_class_names_node_and_title(comfy: Comfy) -> None:
    answer = await comfy.submit({"9": {**node("NoSuchNode"), "_meta": {"title": "My Title"}}})
    assert answer.status == 400
    error = answer.json()["error"]
    assert error["type"] == ("missing_node_type" if comfy.is_current else "invalid_prompt")
    if comfy.is_current:
        assert error["message"] == "Node 'My Title' not found. The custom node may not be installed."
        assert error["details"] == "Node ID '#9'"
        assert error["extra_info"] == {"node_id": "9", "class_type": "NoSuchNode", "node_title": "My Title"}


async def test_node_without_class_is_refused(comfy: Comfy) -> None:
    answer = await comfy.submit({"9": {"inputs": {}}})
    assert answer.status == 400
    if comfy.is_current:
        assert answer.json()["error"]["message"].startswith("Node 'ID #9' has no class_type.")
        assert answer.json()["error"]["extra_info"]["class_type"] is None


async def test_value_that_cannot_be_cast_is_refused_with_its_config(comfy: Comfy) -> None:
    answer = await comfy.submit(_broken(width="abc"))
    body = answer.json()
    assert answer.status == 400
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert body["error"]["message"] == "Prompt outputs failed validation"
    found = body["node_errors"]["1"]
    assert (found["class_type"], found["dependent_outputs"]) == ("EmptyImage", ["2"])
    problem = "invalid literal for int() with base 10: 'abc'"
    assert found["errors"] == [
        {
            "type": "invalid_input_type",
            "message": "Failed to convert an input value to a INT value",
            "details": f"width, abc, {problem}",
            "extra_info": {
                "input_name": "width",
                "input_config": ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}],
                "received_value": "abc",
                "exception_message": problem,
            },
        }
    ]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"width": 0}, "value_smaller_than_min"),
        ({"width": 99999}, "value_bigger_than_max"),
        ({"width": None}, "invalid_input_type"),
        ({"width": {}}, "invalid_input_type"),
        ({"width": ["1"]}, "bad_linked_input"),
    ],
)
async def test_value_out_of_range_is_refused(comfy: Comfy, inputs: dict[str, Any], kind: str) -> None:
    answer = await comfy.submit(_broken(**inputs))
    assert answer.status == 400
    assert errors_of(answer, "1") == [kind]


async def test_limit_is_part_of_the_message(comfy: Comfy) -> None:
    error = (await comfy.submit(_broken(width=0))).json()["node_errors"]["1"]["errors"][0]
    assert (error["message"], error["details"]) == ("Value 0 smaller than min of 1", "width")
    error = (await comfy.submit(_broken(width=99999))).json()["node_errors"]["1"]["errors"][0]
    assert error["message"] == "Value 99999 bigger than max of 16384"


async def test_casts_and_wrappers_change_the_stored_graph(comfy: Comfy) -> None:
    graph = _broken(width="16", height={"__value__": 8.9}, batch_size=True)
    entry = await comfy.run(graph)
    stored = entry["prompt"][2]["1"]["inputs"]
    assert (stored["width"], stored["height"], stored["batch_size"]) == (16, 8, 1)


async def test_value_not_in_list_prints_the_list(comfy: Comfy) -> None:
    graph = _broken() | {
        "3": node("ImageScale", image=["1", 0], upscale_method="magic", width=8, height=8, crop="disabled"),
        "4": node("PreviewImage", images=["3", 0]),
    }
    error = (await comfy.submit(graph)).json()["node_errors"]["3"]["errors"][0]
    methods = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
    assert error["type"] == "value_not_in_list"
    assert error["details"] == f"upscale_method: 'magic' not in {methods}"
    assert error["extra_info"]["input_config"][0] == methods


async def test_long_list_is_not_printed(comfy: Comfy) -> None:
    sampler = node("KSampler", sampler_name="magic")
    graph = {"1": sampler, "2": node("VAEDecode", samples=["1", 0]), "3": node("PreviewImage", images=["2", 0])}
    errors = (await comfy.submit(graph)).json()["node_errors"]["1"]["errors"]
    error = next(each for each in errors if each["type"] == "value_not_in_list")
    assert error["details"].startswith("sampler_name: 'magic' not in (list of length ")
    assert error["extra_info"]["input_config"] is None


async def test_type_mismatch_of_a_link_is_refused(comfy: Comfy) -> None:
    graph = {"1": node("PrimitiveInt", value=1), "2": node("PreviewImage", images=["1", 0])}
    error = (await comfy.submit(graph)).json()["node_errors"]["2"]["errors"][0]
    assert error["type"] == "return_type_mismatch"
    assert error["details"] == "images, received_type(INT) mismatch input_type(IMAGE)"
    assert error["extra_info"]["linked_node"] == ["1", 0]


async def test_cycle_is_refused(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("0.3.64 has no such check")
    graph = {
        "1": node("ImageInvert", image=["2", 0]),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("PreviewImage", images=["2", 0]),
    }
    answer = await comfy.submit(graph)
    assert answer.status == 400
    assert errors_of(answer, "1") == errors_of(answer, "2") == ["dependency_cycle"]


@pytest.mark.parametrize("link", [["55", 0], ["1", 7]])
async def test_link_to_nowhere_is_refused_with_a_traceback(comfy: Comfy, link: list[Any]) -> None:
    answer = await comfy.submit({"1": empty_image(), "2": node("PreviewImage", images=link)})
    assert answer.status == 400
    error = answer.json()["node_errors"]["2"]["errors"][0]
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] in ("KeyError", "IndexError")
    assert error["extra_info"]["traceback"]


async def test_error_of_an_inner_node_lands_on_that_node(comfy: Comfy) -> None:
    graph = {"1": node("ImageInvert", image=["55", 0]), "2": node("PreviewImage", images=["1", 0])}
    answer = await comfy.submit(graph)
    assert errors_of(answer, "1") == ["exception_during_inner_validation"]
    assert answer.json()["node_errors"]["1"]["dependent_outputs"] == ["2"]


@pytest.mark.parametrize(
    "prompt_id", ["", "abc", 5, "C8111192-B372-4439-943D-F62D358EF47C", "c8111192b3724439943df62d358ef47c"]
)
async def test_prompt_id_has_to_be_a_canonical_uuid(comfy: Comfy, prompt_id: Any) -> None:
    answer = await comfy.submit(previewing(1), prompt_id=prompt_id)
    if not comfy.is_current:
        assert answer.status == 200
        return
    assert answer.status == 400
    error = answer.json()["error"]
    assert (error["type"], error["message"]) == ("invalid_prompt_id", "prompt_id must be a valid UUID")
    assert error["details"].startswith(BAD_ID_DETAILS)


async def test_prompt_id_of_the_client_is_kept_and_null_is_minted(comfy: Comfy) -> None:
    wanted = str(uuid.uuid4())
    assert (await comfy.submit(previewing(1), prompt_id=wanted)).json()["prompt_id"] == wanted
    if comfy.is_current:
        minted = (await comfy.submit(previewing(1), prompt_id=None)).json()["prompt_id"]
        assert str(uuid.UUID(minted)) == minted


async def test_repeated_prompt_id_overwrites_the_history_entry(comfy: Comfy) -> None:
    prompt_id, (first, second) = str(uuid.uuid4()), (unique(), unique())
    await comfy.run(saving(f"{first}/x"), prompt_id=prompt_id)
    entry = await comfy.run(saving(f"{second}/x"), prompt_id=prompt_id)
    assert entry["outputs"]["2"]["images"][0]["subfolder"] == second


async def test_partial_targets_select_outputs(comfy: Comfy) -> None:
    graph = previewing(11) | {"3": node("PreviewImage", images=["1", 0])}
    entry = await comfy.run(graph, partial_execution_targets=["3"])
    assert entry["prompt"][4] == ["3"]
    if comfy.is_current:  # 0.3.64 adds what other outputs have in the cache
        assert list(entry["outputs"]) == ["3"]
    entry = await comfy.run(graph, partial_execution_targets="23")
    assert sorted(entry["prompt"][4]) == ["2", "3"]
    assert (await comfy.submit(graph, partial_execution_targets=["9"])).json()["error"]["type"] == "prompt_no_outputs"
    assert (await comfy.submit(graph, partial_execution_targets=5)).status == 500


async def test_extra_data_is_stored_with_client_and_time(comfy: Comfy) -> None:
    extra = {"extra_pnginfo": {"workflow": {"id": "wf"}}, "note": 1, "create_time": 5}
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(previewing(12), client_id=socket.sid, extra_data=extra)
        await socket.end_of(prompt_id)
        stored = (await comfy.history(prompt_id))["prompt"][3]
    assert stored["client_id"] == socket.sid
    assert (stored["extra_pnginfo"], stored["note"]) == (extra["extra_pnginfo"], 1)
    if comfy.is_current:
        assert stored["create_time"] > 1_700_000_000_000


async def test_client_id_inside_extra_data_counts(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(previewing(13), extra_data={"client_id": socket.sid})
        await socket.end_of(prompt_id)


async def test_usage_source_header_is_stored(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    async with comfy.socket() as socket:
        body = {"prompt": previewing(14), "client_id": socket.sid}
        answer = await comfy.post("/prompt", json=body, headers={"Comfy-Usage-Source": "test"})
        await socket.end_of(answer.json()["prompt_id"])
        entry = await comfy.history(answer.json()["prompt_id"])
    assert entry["prompt"][3]["comfy_usage_source"] == "test"


@pytest.mark.parametrize("extra", [None, 5, []])
async def test_extra_data_that_is_no_object_is_500(comfy: Comfy, extra: Any) -> None:
    assert (await comfy.submit(previewing(15), extra_data=extra, client_id="x")).status == 500


async def test_other_fields_are_ignored(comfy: Comfy) -> None:
    assert (await comfy.submit(previewing(16), whatever={"a": 1})).status == 200


async def test_undeclared_literal_is_ignored_and_undeclared_link_is_passed(comfy: Comfy) -> None:
    graph = previewing(17)
    graph["1"]["inputs"]["_salt"] = "x"
    assert (await comfy.run(graph))["status"]["completed"]
    graph["2"]["inputs"]["zzz"] = ["1", 0]
    entry = await comfy.run(graph)
    assert entry["status"]["status_str"] == "error"
    error = next(data for name, data in entry["status"]["messages"] if name == "execution_error")
    assert error["exception_type"] == "TypeError"
    assert "zzz" in error["exception_message"]


async def test_old_class_is_replaced_by_the_new_one(comfy: Comfy) -> None:
    if not comfy.is_current:
        pytest.skip("new in 0.33")
    table = (await comfy.get("/node_replacements")).json()
    assert table["T2IAdapterLoader"][0]["new_node_id"] == "ControlNetLoader"
    graph = previewing(18) | {"7": node("T2IAdapterLoader", t2i_adapter_name="x") | {"_meta": {"title": "t"}}}
    stored = (await comfy.run(graph))["prompt"][2]["7"]
    assert (stored["class_type"], stored["inputs"]) == ("ControlNetLoader", {"control_net_name": "x"})

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.results import (
    MAX_DEPTH,
    UNNAMED_CLIENT,
    entry_to_client,
    extra_data_to_client,
    graph_to_client,
    is_own_item,
    item_to_client,
    output_to_client,
    outputs_to_client,
    scrub,
    scrub_text,
    status_to_client,
    temp_files,
)
from policy.salt import SALT

ALICE = Namespace(TenantId("alice"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["filename", "type", "subfolder", "prompt", "x"]), inner),
    max_leaves=12,
)  # fmt: skip


def file_item(subfolder: str, filename: str = "x_00001_.png", folder: str = "output", **more: Any) -> dict[str, Any]:
    return {"filename": filename, "subfolder": subfolder, "type": folder} | more


def item(client_id: Any = "alice.tab", number: float = 3, prompt_id: Any = "id") -> list[Any]:
    graph = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "tenants/alice/x", SALT: "alice"}}}
    return [number, prompt_id, graph, {"client_id": client_id, "create_time": 5}, ["9"]]


def test_a_graph_comes_back_as_it_was_sent() -> None:
    upstream = {
        "1": {
            "class_type": "LoadImage",
            "inputs": {"image": "tenants/alice/a.png [output]", SALT: "alice"},
            "_meta": {"title": "T"},
            "is_changed": "x",
        },
        "2": {
            "class_type": "Load3D",
            "inputs": {
                "image": {"mask": "tenants/alice/m.png", "camera_info": {"a": 1}, SALT: "alice"},
                "width": 5,
                "model": ["1", 0],
            },
        },
        "3": {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": "tenants/alice"}},
    }
    assert graph_to_client(upstream, ALICE) == {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png [output]"}, "_meta": {"title": "T"}},
        "2": {
            "class_type": "Load3D",
            "inputs": {"image": {"mask": "m.png", "camera_info": {"a": 1}}, "width": 5, "model": ["1", 0]},
        },
        "3": {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": ""}},
    }


@pytest.mark.parametrize("graph", [None, [], "x", {"1": None}, {"1": {}}, {"1": {"inputs": []}}])
def test_a_graph_that_is_not_understood_is_empty(graph: Any) -> None:
    assert graph_to_client(graph, ALICE) == {}


@pytest.mark.parametrize(
    ("upstream", "client"),
    [
        ({"client_id": "alice.tab", "create_time": 5}, {"client_id": "tab", "create_time": 5}),
        ({"client_id": f"alice.{UNNAMED_CLIENT}"}, {}),
        ({"client_id": "bob.tab"}, {}),
        ({"api_key_comfy_org": "secret", "auth_token_comfy_org": "secret", "extra_pnginfo": {}}, {"extra_pnginfo": {}}),
        (None, {}),
        ([], {}),
    ],
)
def test_extra_data_names_the_client_as_it_names_itself(upstream: Any, client: Any) -> None:
    assert extra_data_to_client(upstream, ALICE) == client


@pytest.mark.parametrize(
    ("upstream", "client"),
    [
        (file_item("tenants/alice"), file_item("")),
        (file_item("tenants/alice/a/b"), file_item("a/b")),
        (file_item("tenants\\alice\\a"), file_item("a")),
        (file_item("tenants/alice", folder="input"), file_item("", folder="input")),
        (file_item("", folder="temp"), file_item("", folder="temp")),
        (file_item("api_logs", folder="temp"), file_item("api_logs", folder="temp")),
        (file_item("tenants/alice/threed", folder="temp"), file_item("threed", folder="temp")),
        ({"filename": "tenants/alice/clip.mp4", "type": "input"}, {"filename": "clip.mp4", "subfolder": "", "type": "input"}),
        (
            file_item("tenants/alice", format="video/mp4", fullpath="/srv/out/tenants/alice/x_00001_.png", frame_rate=8.0),
            file_item("", format="video/mp4", fullpath="x_00001_.png", frame_rate=8.0),
        ),
    ],
)  # fmt: skip
def test_file_items_lose_the_root(upstream: Any, client: Any) -> None:
    assert output_to_client({"images": [upstream]}, ALICE) == {"images": [client]}


@pytest.mark.parametrize(
    "upstream",
    [
        file_item(""),
        file_item("tenants/bob"),
        file_item("tenants/alice2"),
        file_item("/srv/output/tenants/alice"),
        file_item("tenants/alice/../bob"),
        file_item("", folder="models"),
        file_item("../tenants/bob", folder="temp"),
        file_item("/etc", folder="temp"),
        file_item("", "tenants", folder="output"),
        file_item("tenants", "alice"),
        {"filename": "x.png", "subfolder": ["tenants/alice"], "type": "output"},
        {"filename": "x.png"},
        {"filename": "x.png", "type": 5},
    ],
)
def test_files_that_are_not_the_tenants_are_left_out(upstream: Any) -> None:
    assert output_to_client({"images": [upstream, file_item("tenants/alice")]}, ALICE) == {"images": [file_item("")]}


def test_texts_flags_and_other_values_stay() -> None:
    output = {
        "text": ["see tenants/alice/3d/x.glb and /etc/hosts/a"],
        "animated": [True],
        "dims": [1, 2.5],
        "result": ["tenants/alice/3d/x.glb", None, {"position": {"x": 1}}],
    }
    assert output_to_client(output, ALICE) == {
        "text": ["see 3d/x.glb and /etc/hosts/a"],
        "animated": [True],
        "dims": [1, 2.5],
        "result": ["3d/x.glb", None, {"position": {"x": 1}}],
    }


def test_what_is_nested_too_deeply_is_left_out() -> None:
    value: Any = 5
    for _ in range(MAX_DEPTH + 5):
        value = {"a": value}
    shown = output_to_client(value, ALICE)
    depth = 0
    while shown is not None:
        shown = shown["a"]
        depth += 1
    assert depth == MAX_DEPTH
    assert scrub([value], ALICE, 2) == [{"a": None}]


@pytest.mark.parametrize("outputs", [None, [], "x"])
def test_outputs_that_are_not_understood_are_empty(outputs: Any) -> None:
    assert outputs_to_client(outputs, ALICE) == {}


def test_outputs_are_by_node() -> None:
    assert outputs_to_client({"9": {"images": [file_item("tenants/alice")]}}, ALICE) == {
        "9": {"images": [file_item("")]}
    }


HEX = "0123456789abcdef" * 2


def test_temp_files_of_a_job_are_found() -> None:
    output = {
        "images": [file_item("", "a.png", "temp"), file_item("b", "c.png", "temp"), file_item("tenants/alice"), "x", {"type": "temp"}],
        "a_images": [file_item("", "d.png", "temp")],
        "audio": "nonsense",
        "result": [f"preview3d_{HEX}.glb", {"a": 1}, f"temp/bg_{HEX}.png"],
    }  # fmt: skip
    assert temp_files(output) == ["a.png", "b/c.png", "d.png", f"preview3d_{HEX}.glb", f"bg_{HEX}.png"]
    assert temp_files(None) == []


@pytest.mark.parametrize(
    "output",
    [
        {"result": ["ComfyUI_temp_abcde_00001_.png", file_item("", "ComfyUI_temp_abcde_00001_.png", "temp"), None]},
        {"result": [f"tenants/bob/preview3d_{HEX}.glb", "temp/../x"]},
        {"input_bboxes": [file_item("", "ComfyUI_temp_abcde_00001_.png", "temp")]},
        {"text": ["ComfyUI_temp_abcde_00001_.png"]},
        {"images": {"0": file_item("", "ComfyUI_temp_abcde_00001_.png", "temp")}},
        {"images": [[file_item("", "ComfyUI_temp_abcde_00001_.png", "temp")]]},
        {"images": [file_item("", "ComfyUI_00001_.png", "output")]},
    ],
)
def test_shown_values_of_the_client_grant_nothing(output: Any) -> None:
    assert temp_files(output) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('  File "/opt/Comfy UI/nodes.py", line 5, in x', '  File "nodes.py", line 5, in x'),
        ("[Errno 2] No such file: '/opt/comfy/input/tenants/alice/a b.png'", "[Errno 2] No such file: 'a b.png'"),
        ("\n full_output_folder: /opt/comfy/x\n output_dir: /opt/comfy/output", "\n full_output_folder: x\n output_dir: output"),
        (r'File "C:\Users\me\ComfyUI\nodes.py"', 'File "nodes.py"'),
        (r"at C:\Users\me\x.py", "at x.py"),
        ("/opt/comfy/models/", "models"),
        ("Invalid image file: tenants/alice/x.png", "Invalid image file: x.png"),
        ("image - Invalid image file: tenants/bob/x.png", "image - Invalid image file: tenants/bob/x.png"),
        ("see https://example.com/a/b and a/b/c, 1/2 or /tmp", "see https://example.com/a/b and a/b/c, 1/2 or /tmp"),
        ("nothing", "nothing"),
        ("\\d+", "\\d+"),
    ],
)  # fmt: skip
def test_server_paths_leave_messages(text: str, shown: str) -> None:
    assert scrub_text(text, ALICE) == shown


def test_errors_are_scrubbed_in_every_part() -> None:
    data = {
        "prompt_id": "id",
        "exception_message": "at /opt/comfy/x.py",
        "traceback": ['  File "/opt/comfy/nodes.py"\n'],
        "current_inputs": {"image": ["tenants/alice/x.png"], SALT: ["alice"]},
        "timestamp": 5,
    }
    assert scrub(data, ALICE) == {
        "prompt_id": "id",
        "exception_message": "at x.py",
        "traceback": ['  File "nodes.py"\n'],
        "current_inputs": {"image": ["x.png"]},
        "timestamp": 5,
    }


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (None, None),
        ("x", None),
        ({}, {"messages": []}),
        (
            {"status_str": "error", "completed": False, "messages": [["execution_error", {"exception_message": "/a/b/c"}]], "x": 1},
            {"status_str": "error", "completed": False, "messages": [["execution_error", {"exception_message": "c"}]]},
        ),
    ],
)  # fmt: skip
def test_a_status_has_its_messages(status: Any, shown: Any) -> None:
    assert status_to_client(status, ALICE) == shown


def test_an_item_carries_the_tenants_own_number() -> None:
    graph = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}
    assert item_to_client(item(number=123.5), ALICE, 7) == [
        7,
        "id",
        graph,
        {"client_id": "tab", "create_time": 5},
        ["9"],
    ]
    assert item_to_client([*item(), {"api_key": "secret"}], ALICE, 7) == item_to_client(item(), ALICE, 7)
    assert item_to_client([*item()[:4], "nonsense"], ALICE, 7) == [
        7,
        "id",
        graph,
        {"client_id": "tab", "create_time": 5},
        [],
    ]


@pytest.mark.parametrize(
    "upstream",
    [
        item("bob.tab"),
        item("tab"),
        item(None),
        item(["alice.tab"]),
        item(prompt_id=5),
        item()[:3],
        item()[:4],
        None,
        {},
        [1, "id", {}, "alice.tab", []],
        [1, "id", {}, {}, []],
    ],
)
def test_items_that_are_not_the_tenants_are_nothing(upstream: Any) -> None:
    assert item_to_client(upstream, ALICE, 1) is None
    assert entry_to_client({"prompt": upstream}, ALICE, 1) is None


def test_ownership_stands_in_the_item() -> None:
    assert is_own_item(item(), ALICE)
    assert not is_own_item(item("bob.tab"), ALICE)


def test_a_history_entry_is_shown_whole() -> None:
    entry = {
        "prompt": item(),
        "outputs": {"9": {"images": [file_item("tenants/alice")]}},
        "status": {"status_str": "success", "completed": True, "messages": []},
        "meta": {"9": {"node_id": "9"}},
        "secret": "x",
    }
    shown = entry_to_client(entry, ALICE, 2)
    assert shown == {
        "prompt": item_to_client(item(), ALICE, 2),
        "outputs": {"9": {"images": [file_item("")]}},
        "status": {"status_str": "success", "completed": True, "messages": []},
        "meta": {"9": {"node_id": "9"}},
    }
    assert entry_to_client({"prompt": item()}, ALICE, 2) == {
        "prompt": item_to_client(item(), ALICE, 2),
        "outputs": {},
        "status": None,
    }
    assert entry_to_client("x", ALICE, 2) is None


@given(JSON)
def test_leaving_is_total(value: Any) -> None:
    graph_to_client(value, ALICE)
    outputs_to_client(value, ALICE)
    output_to_client(value, ALICE)
    status_to_client(value, ALICE)
    extra_data_to_client(value, ALICE)
    temp_files(value)
    scrub(value, ALICE)
    assert item_to_client(value, ALICE, 1) is None
    assert entry_to_client(value, ALICE, 1) is None

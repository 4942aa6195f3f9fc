from __future__ import annotations

from typing import Any

import pytest

from policy.catalogue import NodeClass, read_catalogue
from policy.file_uses import FileUse, file_inputs
from policy.rule_context import RuleContext
from policy.salt import SALT, needs_salt
from policy.violation import Reason
from policy.workflow_files import MAX_TEMP_FILES, find_temp_files, rewrite_nodes
from tests.policy.names import HOSTILE
from tests.policy.tenants import CATALOGUE, Jobs, caller_of, node, plans_of, refusal, rewrite_workflow

TEMP = "ComfyUI_temp_abcde_00001_.png"
ALICE = caller_of("alice", jobs=Jobs(temp={TEMP}))


def class_of(name: str) -> NodeClass:
    found = CATALOGUE.get(name)
    assert found is not None
    return found


def rewrite(class_type: str, inputs: dict[str, Any], context: RuleContext = ALICE) -> dict[str, Any]:
    """The inputs of one node as ComfyUI gets them, without the salt."""
    nodes = {"7": {"class_type": class_type, "inputs": inputs, "_meta": {"title": "T"}}}
    rewritten = rewrite_workflow(nodes, context)["7"]
    assert rewritten["class_type"] == class_type
    assert rewritten["_meta"] == {"title": "T"}
    return {name: value for name, value in rewritten["inputs"].items() if name != SALT}


def refused(class_type: str, inputs: dict[str, Any]) -> list[tuple[str, str]]:
    """Input and code of each error of the one node."""
    violation = refusal(rewrite_workflow, {"7": {"class_type": class_type, "inputs": inputs}}, ALICE)
    assert violation.reason is Reason.POLICY_VIOLATION
    assert violation.node_errors.keys() == {"7"}
    entry = violation.node_errors["7"]
    assert entry["class_type"] == class_type
    assert entry["dependent_outputs"] == []
    return [(error["extra_info"]["input_name"], error["type"]) for error in entry["errors"]]


@pytest.mark.parametrize(
    ("class_type", "uses"),
    [
        ("LoadImage", {"image": FileUse.READ}),
        ("LoadImageOutput", {"image": FileUse.READ}),
        ("LoadLatent", {"latent": FileUse.READ}),
        ("LoadAudio", {"audio": FileUse.READ}),
        ("Load3D", {"model_file": FileUse.READ, "image": FileUse.OBJECT_OF_PATHS}),
        ("Preview3D", {"model_file": FileUse.DISPLAY_ONLY}),
        ("Preview3DAdvanced", {}),
        ("WebcamCapture", {"image": FileUse.READ}),
        ("GeminiInputFiles", {"file": FileUse.LISTED}),
        ("LoadImageDataSetFromFolder", {"folder": FileUse.FOLDER}),
        ("SaveImage", {"filename_prefix": FileUse.PREFIX}),
        ("SaveLoRA", {"prefix": FileUse.PREFIX}),
        ("SaveImageDataSetToFolder", {"folder_name": FileUse.FOLDER_TO_WRITE, "filename_prefix": FileUse.PREFIX_NAME}),
        ("AddTextPrefix", {}),
        ("CheckpointLoaderSimple", {}),
        ("CLIPTextEncode", {}),
        ("CustomCombo", {}),
        ("PackLoadVideo", {"video": FileUse.READ}),
        ("PackLoadEmpty", {"video": FileUse.READ}),
        ("PackLoadFolder", {"directory": FileUse.FOLDER}),
        ("PackLoadListed", {"file": FileUse.READ}),
        ("PackLoadPath", {"video_path": FileUse.FOLDER, "file": FileUse.READ}),
        ("PackSave", {"output_path": FileUse.FOLDER_TO_WRITE, "filename_prefix": FileUse.PREFIX_NAME}),
    ],
)
def test_inputs_that_name_files_are_known(class_type: str, uses: dict[str, FileUse]) -> None:
    assert file_inputs(class_of(class_type)) == uses


@pytest.mark.parametrize("remote", [None, "x", {}, {"route": 5}, {"route": "https://example.com/list"}])
def test_other_remote_lists_are_no_files(remote: Any) -> None:
    document = {"Node": node({"x": ["COMBO", {"remote": remote}]})}
    assert file_inputs(read_catalogue(document).classes["Node"]) == {}


def test_inputs_of_a_chosen_option_name_files_too() -> None:
    batch = class_of("Batch")
    assert file_inputs(batch) == {}
    assert file_inputs(batch, {"mode": "none"}) == {}
    assert file_inputs(batch, {"mode": "file"}) == {"mode.picture": FileUse.READ}
    inputs = {"mode": "file", "mode.picture": "x.png"}
    assert rewrite("Batch", inputs) == {"mode": "file", "mode.picture": "tenants/alice/x.png"}


@pytest.mark.parametrize(
    ("class_type", "name", "value", "upstream"),
    [
        ("LoadImage", "image", "photo.png", "tenants/alice/photo.png"),
        ("LoadImage", "image", "sub/photo.png", "tenants/alice/sub/photo.png"),
        ("LoadImage", "image", "photo.png [output]", "tenants/alice/photo.png [output]"),
        ("LoadImage", "image", "photo.png [input]", "tenants/alice/photo.png [input]"),
        ("LoadImage", "image", f"{TEMP} [temp]", f"{TEMP} [temp]"),
        ("LoadImage", "image", "ComfyUI_temp_abcde_00002_.png [temp]", "tenants/alice/ComfyUI_temp_abcde_00002_.png [temp]"),
        ("LoadImage", "image", TEMP, f"tenants/alice/{TEMP}"),
        ("LoadImage", "image", "example.png", "example.png"),
        ("LoadImage", "image", "shared/a.png [input]", "shared/a.png [input]"),
        ("LoadImage", "image", "example.png [output]", "tenants/alice/example.png [output]"),
        ("LoadImage", "image", "tenants/bob/x.png", "tenants/alice/tenants/bob/x.png"),
        ("LoadImage", "image", "", ""),
        ("LoadImageOutput", "image", "x_00001_.png [output]", "tenants/alice/x_00001_.png [output]"),
        ("LoadLatent", "latent", "a.latent", "tenants/alice/a.latent"),
        ("LoadAudio", "audio", "a.wav", "tenants/alice/a.wav"),
        ("Load3D", "model_file", "none", "none"),
        ("Load3D", "model_file", "3d/a.glb", "tenants/alice/3d/a.glb"),
        ("LoadImage", "image", "none", "tenants/alice/none"),
        ("Preview3D", "model_file", "a.glb", "tenants/alice/a.glb"),
        ("WebcamCapture", "image", "webcam/1.png [temp]", "tenants/alice/webcam/1.png [temp]"),
        ("GeminiInputFiles", "file", "shared.pdf", "shared.pdf"),
        ("LoadImageDataSetFromFolder", "folder", "cats", "tenants/alice/cats"),
        ("LoadImageDataSetFromFolder", "folder", "", "tenants/alice"),
        ("LoadImageDataSetFromFolder", "folder", "shared", "shared"),
        ("LoadImageDataSetFromFolder", "folder", "tenants/bob/cats", "tenants/alice/tenants/bob/cats"),
        ("SaveImage", "filename_prefix", "ComfyUI", "tenants/alice/ComfyUI"),
        ("SaveImage", "filename_prefix", "a/%year%-%width%/x", "tenants/alice/a/%year%-%width%/x"),
        ("SaveImage", "filename_prefix", "checkpoints/x", "tenants/alice/checkpoints/x"),
        ("SaveImage", "filename_prefix", "shared/x", "tenants/alice/shared/x"),
        ("SaveImage", "filename_prefix", "", "tenants/alice/ComfyUI"),
        ("SaveImage", "filename_prefix", "./", "tenants/alice/ComfyUI"),
        ("SaveImage", "filename_prefix", "tenants/alice/", "tenants/alice/ComfyUI"),
        ("SaveImage", "filename_prefix", "proj/", "tenants/alice/proj"),
        ("SaveImage", "filename_prefix", "./proj", "tenants/alice/proj"),
        ("SaveImage", "filename_prefix", "proj\\x", "tenants/alice/proj/x"),
        ("SaveImage", "filename_prefix", "run 10:22", "tenants/alice/run 10:22"),
        ("SaveImage", "filename_prefix", "%date:yyyy-MM-dd%/x", "tenants/alice/2026-03-04/x"),
        ("SaveImage", "filename_prefix", "%date:yy_M_d hh:mm:ss yyy%", "tenants/alice/26_3_4 05:06:07 yyy"),
        ("SaveImage", "filename_prefix", "com%width%", "tenants/alice/~=com%width%"),
        ("SaveImage", "filename_prefix", "%width%%2e", "tenants/alice/~=%width%=252e"),
        ("SaveImage", "filename_prefix", "con", "tenants/alice/~=con"),
        ("SaveAudio", "filename_prefix", "", "tenants/alice/audio/ComfyUI"),
        ("SaveImageDataSetToFolder", "filename_prefix", "", "ComfyUI"),
        ("LoadImage", "image", "blake3:00", "tenants/alice/~=blake3=3A00"),
        ("LoadImage", "image", "./sub\\photo.png", "tenants/alice/sub/photo.png"),
        ("LoadImageDataSetFromFolder", "folder", "./shared/", "shared"),
        ("SaveLoRA", "prefix", "loras/mine", "tenants/alice/loras/mine"),
        ("SaveImageDataSetToFolder", "folder_name", "cats", "tenants/alice/cats"),
        ("SaveImageDataSetToFolder", "folder_name", "shared", "tenants/alice/shared"),
        ("SaveImageDataSetToFolder", "filename_prefix", "cat", "cat"),
        ("PackLoadVideo", "video", "a.mp4", "tenants/alice/a.mp4"),
        ("PackLoadVideo", "mode", "fast", "fast"),
        ("PackLoadFolder", "directory", "tenants", "tenants/alice/tenants"),
        ("PackLoadPath", "video_path", "a.mp4", "tenants/alice/a.mp4"),
        ("PackLoadPath", "text", "../x", "../x"),
        ("PackSave", "output_path", "out", "tenants/alice/out"),
        ("PackSave", "caption", "a/../b", "a/../b"),
        ("CLIPTextEncode", "text", "tenants/bob/x.png", "tenants/bob/x.png"),
    ],
)  # fmt: skip
def test_literals_are_written_into_the_namespace(class_type: str, name: str, value: str, upstream: str) -> None:
    assert rewrite(class_type, {name: value}) == {name: upstream}


@pytest.mark.parametrize(
    ("class_type", "name", "value"),
    [
        ("LoadImage", "image", "tenants/alice/photo.png"),
        ("LoadImage", "image", "tenants/alice/photo.png [output]"),
        ("SaveImage", "filename_prefix", "tenants/alice/ComfyUI"),
        ("LoadImageDataSetFromFolder", "folder", "tenants/alice/cats"),
        ("LoadImageDataSetFromFolder", "folder", "tenants/alice"),
        ("LoadImage", "image", f"{TEMP} [temp]"),
    ],
)
def test_a_workflow_from_a_saved_picture_means_the_same_files(class_type: str, name: str, value: str) -> None:
    assert rewrite(class_type, {name: value}) == {name: value}


def test_a_neighbours_saved_picture_leads_into_ones_own_folder() -> None:
    assert rewrite("SaveImage", {"filename_prefix": "tenants/bob/x"}) == {
        "filename_prefix": "tenants/alice/tenants/bob/x"
    }


@pytest.mark.parametrize("value", [["1", 0], [], ["1", 0, 2], ["a"]])
@pytest.mark.parametrize(
    ("class_type", "name"),
    [
        ("LoadImage", "image"),
        ("Load3D", "model_file"),
        ("Load3D", "image"),
        ("GeminiInputFiles", "file"),
        ("LoadImageDataSetFromFolder", "folder"),
        ("SaveImage", "filename_prefix"),
        ("SaveImageDataSetToFolder", "folder_name"),
        ("PackLoadPath", "file"),
    ],
)
def test_links_are_refused_where_a_file_is_named(class_type: str, name: str, value: Any) -> None:
    assert refused(class_type, {name: value}) == [(name, "file-input-linked")]


def test_a_link_may_lead_where_a_path_is_only_shown() -> None:
    assert rewrite("Preview3D", {"model_file": ["1", 2]}) == {"model_file": ["1", 2]}


@pytest.mark.parametrize("value", [5, 1.5, True, None, {"__value__": "bob.png"}, {"image": "bob.png"}])
def test_other_literals_are_refused_where_a_file_is_named(value: Any) -> None:
    assert refused("LoadImage", {"image": value}) == [("image", "file-input-malformed")]


@pytest.mark.parametrize("value", [5, None, {"__value__": {"image": "bob.png"}}])
def test_a_bundle_is_a_plain_object(value: Any) -> None:
    assert refused("Load3D", {"image": value}) == [("image", "file-input-malformed")]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    ("class_type", "input_name"),
    [
        ("LoadImage", "image"),
        ("SaveImage", "filename_prefix"),
        ("LoadImageDataSetFromFolder", "folder"),
        ("SaveLoRA", "prefix"),
        ("SaveImageDataSetToFolder", "folder_name"),
        ("SaveImageDataSetToFolder", "filename_prefix"),
        ("Preview3D", "model_file"),
    ],
)
def test_hostile_names_are_refused(class_type: str, input_name: str, name: str) -> None:
    assert refused(class_type, {input_name: name}) == [(input_name, "file-input-refused")]


@pytest.mark.parametrize(
    ("class_type", "name", "value"),
    [
        ("LoadImage", "image", "bob.pngZ[output]"),
        ("SaveImage", "filename_prefix", "%width%/../x"),
        ("SaveImage", "filename_prefix", "%date:../%x"),
        ("SaveImage", "filename_prefix", "x" * 231),
        ("SaveImage", "filename_prefix", "%width%" + "x" * 249),
        ("SaveImageDataSetToFolder", "filename_prefix", "a/b"),
        ("LoadImage", "image", "."),
        ("GeminiInputFiles", "file", "bob.pdf"),
        ("GeminiInputFiles", "file", "mine.pdf"),
        ("GeminiInputFiles", "file", "shared/other.pdf"),
    ],
)
def test_names_that_mean_something_else_upstream_are_refused(class_type: str, name: str, value: str) -> None:
    assert refused(class_type, {name: value}) == [(name, "file-input-refused")]


def test_every_text_in_a_bundle_names_a_file() -> None:
    bundle = {
        "image": "threed/scene1.png [temp]",
        "mask": "threed/mask1.png [temp]",
        "recording": "",
        "anything": "x.png",
        "camera_info": {"position": "[0, 0, 1]"},
        "model_3d_info": [{"name": "../x"}],
        "width": 5,
    }
    assert rewrite("Load3D", {"image": bundle}) == {
        "image": bundle
        | {
            "image": "tenants/alice/threed/scene1.png [temp]",
            "mask": "tenants/alice/threed/mask1.png [temp]",
            "anything": "tenants/alice/x.png",
        }
    }
    assert refused("Load3D", {"image": {"mask": "../bob/x.png"}}) == [("image", "file-input-refused")]


def test_all_offending_nodes_are_named_at_once() -> None:
    nodes = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "../bob.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "fine"}},
        "4": {"class_type": "Load3D", "inputs": {"model_file": 5, "image": ["1", 0]}},
    }
    violation = refusal(rewrite_workflow, nodes, ALICE)
    assert violation.node_errors.keys() == {"1", "2", "4"}
    assert len(violation.node_errors["4"]["errors"]) == 2
    assert "node 1: image:" in violation.details


def test_what_was_replaced_is_told() -> None:
    nodes: dict[str, Any] = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "tenants/alice/y"}},
    }
    assert rewrite_nodes(nodes, plans_of(nodes, CATALOGUE), ALICE) == [("1", "image", "x.png")]
    assert nodes["1"]["inputs"] == {"image": "tenants/alice/x.png", SALT: "alice"}


@pytest.mark.parametrize(
    ("class_type", "is_salted"),
    [
        ("SaveImage", True),
        ("PreviewImage", True),
        ("Painter", True),
        ("LoadImage", True),
        ("LoadImageDataSetFromFolder", True),
        ("CLIPTextEncode", True),
        ("EmptyImage", True),
        ("CheckpointLoaderSimple", False),
        ("CustomCombo", False),
    ],
)
def test_only_models_are_shared(class_type: str, is_salted: bool) -> None:
    node_class = class_of(class_type)
    assert needs_salt(node_class, bool(file_inputs(node_class))) is is_salted
    inputs = rewrite_workflow({"1": {"class_type": class_type, "inputs": {}}}, ALICE)["1"]["inputs"]
    assert inputs == ({SALT: "alice"} if is_salted else {})


def test_classes_from_outside_are_salted_when_they_show_or_read_files() -> None:
    document = {
        "Quiet": node({"x": ["INT"]}, ["IMAGE"], python_module="custom_nodes.pack"),
        "Shows": node({"x": ["INT"]}, ["IMAGE"], python_module="custom_nodes.pack", output_node=True),
        "NoOutputs": node({"x": ["INT"]}, []),
    }
    classes = read_catalogue(document).classes
    assert [needs_salt(classes[name], False) for name in ("Quiet", "Shows", "NoOutputs")] == [False, True, True]


def test_no_class_of_the_catalogue_declares_the_salt() -> None:
    assert not any(SALT in node_class.inputs for node_class in CATALOGUE.classes.values())


def test_undeclared_texts_are_judged_by_their_names_and_by_what_they_say() -> None:
    inputs = {
        "lora_1": {"on": True, "lora": "style.safetensors", "preview": "a.png"},
        "video_path": "clips/any",
        "pix_fmt": "yuv420p",
        "filename_prefix": "out/x",
        "any_01": ["3", 0],
    }
    assert rewrite("PackLoadVideo", inputs) == inputs | {
        "lora_1": {"on": True, "lora": "style.safetensors", "preview": "tenants/alice/a.png"},
        "video_path": "tenants/alice/clips/any",
        "filename_prefix": "tenants/alice/out/x",
    }
    assert rewrite("PackLoadVideo", {"frame": f"{TEMP} [temp]"}) == {"frame": f"{TEMP} [temp]"}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("video_path", ["3", 0], "file-input-linked"),
        ("video_path", "../x", "file-input-refused"),
        ("any", "tenants/bob/x.png", "file-input-refused"),
        ("any", {"deep": ["/srv/x"]}, "file-input-refused"),
        ("filename_prefix", "/srv/x", "file-input-refused"),
        ("filename_prefix", ["3", 0], "file-input-linked"),
    ],
)
def test_undeclared_texts_that_lead_elsewhere_are_refused(name: str, value: Any, code: str) -> None:
    assert refused("PackLoadVideo", {name: value}) == [(name, code)]


def test_what_a_dynamic_input_does_not_bring_is_undeclared() -> None:
    given = {"mode": "none", "mode.picture": "a.png"}
    assert rewrite("Batch", given) == given | {"mode.picture": "tenants/alice/a.png"}


@pytest.mark.parametrize("text", ["a cat", "tenants", "out/x.png", "tenants/alice/x.png", "\uff54enants", 5, ["1", 0]])
def test_other_texts_of_classes_from_outside_stay_as_they_came(text: Any) -> None:
    assert rewrite("PackText", {"value": text}) == {"value": text}


@pytest.mark.parametrize("text", ["tenants/bob/x.png", "output/Tenants\\bob", "\uff54enants/bob", "a\ntenants/bob/x"])
def test_other_texts_of_classes_from_outside_lead_into_no_neighbours_folder(text: str) -> None:
    assert refused("PackText", {"value": text}) == [("value", "file-input-refused")]
    nodes = {
        "1": {
            "class_type": "PrimitiveString",
            "inputs": {"value": text},
        },
        "7": {"class_type": "PackText", "inputs": {"value": ["1", 0]}},
    }
    assert refusal(rewrite_workflow, nodes, ALICE).node_errors.keys() == {"7"}


def test_temp_files_among_everybodys_are_told_once_wherever_they_stand() -> None:
    other = "sub/other.png"
    nodes: dict[str, Any] = {
        "1": {"inputs": {"image": f"{TEMP} [temp]", "again": [f"{TEMP} [temp]", 5]}},
        "2": {
            "inputs": {"text": f"of {TEMP} [temp]", "own": "tenants/alice/x.png [temp]", "more": {f"{other} [temp]": 1}}
        },
        "3": {},
    }
    context = caller_of("alice", jobs=Jobs(temp={TEMP, other}))
    assert set(find_temp_files(nodes, context)) == {TEMP, other}


def test_a_workflow_that_reads_too_many_is_refused() -> None:
    names = [f"{number}.png" for number in range(MAX_TEMP_FILES + 1)]
    context = caller_of("alice", jobs=Jobs(temp=set(names)))
    nodes = {name: {"inputs": {"image": f"{name} [temp]"}} for name in names}
    assert refusal(find_temp_files, nodes, context).reason is Reason.POLICY_VIOLATION
    del nodes[names[0]]
    assert len(find_temp_files(nodes, context)) == MAX_TEMP_FILES

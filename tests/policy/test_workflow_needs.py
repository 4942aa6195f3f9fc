from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from policy.call import ClaimedJob, RecordJob
from policy.catalogue import Catalogue, read_catalogue
from policy.fitting import NOBODY, Candidate
from policy.merging import shape_of
from policy.needs import Needs, read_needs
from policy.patience import Patience, TooMuch
from policy.rule_context import RuleContext
from policy.rules.prompt import submit
from policy.violation import Reason, Violation
from policy.workflow_files import rewrite_nodes
from policy.workflow_needs import MAX_BYTES, MAX_FILES, MAX_SHAPES, find_needs
from tests.policy.tenants import IN_CUSTOM, OBJECT_INFO, Jobs, caller_of, drive, node, plans_of, reply_of, request_of

ALICE = caller_of(
    "alice",
    jobs=Jobs(temp={"made.png"}),
    catalogue=read_catalogue(
        OBJECT_INFO
        | {
            "CheckpointLoaderSimple": node({"ckpt_name": [["a.safetensors", "xl/b.CKPT", "none"]]}, ["MODEL"]),
            "KSampler": node({"sampler_name": ["COMBO", {"options": ["euler", 2, None]}], "model": ["MODEL"]}),
            "Several": node({"loras": ["COMBO", {"options": ["a.pt", "b.pt"], "multiselect": True}]}, ["MODEL"]),
            "LoadTrainingDataset": node({"folder_name": ["STRING", {}]}, ["LATENT"]),
            "PackImage": node({"id": ["STRING", {}]}, ["IMAGE"], **IN_CUSTOM),
            "Show": node({}, output_node=True),
        }
    ),
    id_inputs={"PackImage": frozenset({"id"})},
)


def needs_of(nodes: dict[str, Any], *outputs: str, context: RuleContext = ALICE, effort: float = 10_000) -> Needs:
    copied = copy.deepcopy(nodes)
    plans = plans_of(copied, context.catalogue)
    rewrite_nodes(copied, plans, context)
    return find_needs(copied, plans, outputs or tuple(copied), context, Patience(effort))


def of(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def files_of(class_type: str, **inputs: Any) -> list[tuple[str, str]]:
    return [(str(folder), path) for folder, path in needs_of({"1": of(class_type, **inputs)}).files]


def test_classes_choices_and_models_are_needed() -> None:
    needs = needs_of(
        {
            "1": of("CheckpointLoaderSimple", ckpt_name="xl/b.CKPT"),
            "2": of("KSampler", sampler_name="euler", model=["1", 0], none="a.safetensors"),
            "3": of("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
            "4": of("KSampler", sampler_name="euler", model=["3", 0]),
            "5": of("Several", loras={"__value__": ["b.pt", "a.pt", 3, "gone.pt"]}),
            "6": of("Batch", mode="none"),
        }
    )
    assert needs == Needs(
        classes=("CheckpointLoaderSimple", "KSampler", "Several", "Batch"),
        choices=(
            ("CheckpointLoaderSimple", "ckpt_name", "xl/b.CKPT"),
            ("KSampler", "sampler_name", "euler"),
            ("CheckpointLoaderSimple", "ckpt_name", "a.safetensors"),
            ("Several", "loras", "b.pt"),
            ("Several", "loras", "a.pt"),
            ("Batch", "mode", "none"),
        ),
        models=("a.pt", "a.safetensors", "b.pt", "xl/b.CKPT"),
    )


@pytest.mark.parametrize("given", ["gone.safetensors", 2, ["2", 0], {"__value__": 3}, {"x": "a.safetensors"}])
def test_what_nobody_lists_is_no_choice(given: Any) -> None:
    nodes = {"1": of("CheckpointLoaderSimple", ckpt_name=given), "2": of("CheckpointLoaderSimple")}
    assert needs_of(nodes).choices == ()


def test_of_nodes_that_no_output_needs_the_class_is_needed_alone() -> None:
    nodes = {
        "1": of("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "2": of("LoadImage", image="x.png"),
        "3": of("EmptyImage", width=8),
        "4": of("SaveImage", images=["3", 0], filename_prefix="x"),
    }
    assert needs_of(nodes, "4") == Needs(
        classes=("CheckpointLoaderSimple", "LoadImage", "EmptyImage", "SaveImage"), prefixes=(("4", "filename_prefix"),)
    )


@pytest.mark.parametrize(
    ("class_type", "inputs", "files"),
    [
        ("LoadImage", {"image": "cats/x.png"}, [("input", "tenants/alice/cats/x.png")]),
        ("LoadImage", {"image": "x.png [output]"}, [("output", "tenants/alice/x.png")]),
        ("LoadImage", {"image": "@gpu-2/x.png [output]"}, [("output", "tenants/alice/@gpu-2/x.png")]),
        ("LoadImage", {"image": "made.png [temp]"}, [("temp", "made.png")]),
        ("LoadImage", {"image": "example.png"}, [("input", "example.png")]),
        ("LoadImage", {"image": ""}, []),
        ("Load3D", {"model_file": "none"}, []),
        (
            "Load3D",
            {"model_file": "3d/x.glb", "image": {"mask": "m.png", "camera": {"at": 1}, "normal": ""}},
            [("input", "tenants/alice/3d/x.glb"), ("input", "tenants/alice/m.png")],
        ),
        ("Preview3D", {"model_file": "x.glb"}, []),
        ("GeminiInputFiles", {"file": "shared.pdf"}, [("input", "shared.pdf")]),
        ("PackLoadPath", {"file": "x.png", "text": "a cat"}, [("input", "tenants/alice/x.png")]),
        ("PackAny", {"anything": {"k.png": ["x.png", 3]}, "text": "tenants/alice/told.png"},
         [("input", "tenants/alice/x.png"), ("input", "tenants/alice/k.png"), ("input", "tenants/alice/told.png")]),
        ("PackSave", {"caption": "tenants/alice/told.png"}, [("input", "tenants/alice/told.png")]),
        ("PackText", {"value": "x" * 5000}, []),
        ("EmptyImage", {"width": 8, "file": "x.png"}, [("input", "tenants/alice/x.png")]),
    ],
)  # fmt: skip
def test_files_that_are_read_are_needed(class_type: str, inputs: dict[str, Any], files: list[tuple[str, str]]) -> None:
    assert sorted(files_of(class_type, **inputs)) == sorted(files)


@pytest.mark.parametrize(
    "text",
    [
        "tenants/bob/x.png",
        "tenants/alice/../bob/x.png",
        "tenants/alice/x.png\ntenants/bob/x.png",
        "bob.png",
        "/etc/passwd",
        "x.png [output] [input]",
        "secret.png [temp]",
    ],
)
def test_no_name_is_one_of_anothers_files(text: str) -> None:
    """Also where a workflow that was not written anew names one."""
    nodes = {"1": of("PackText", value=text), "2": of("LoadImage", image=text)}
    assert find_needs(nodes, plans_of(nodes, ALICE.catalogue), ("1", "2"), ALICE).files == ()


def test_what_says_where_files_are_written_is_known() -> None:
    nodes = {
        "1": of("SaveImage", images=["9", 0], filename_prefix="x"),
        "2": of("PackSave", images=["9", 0], output_path="", filename_prefix="x", caption="c"),
        "3": of("SaveLoRA", lora=["9", 0], prefix="x"),
        "9": of("EmptyImage", width=8, filename_prefix="x"),
    }
    needs = needs_of(nodes)
    assert needs.prefixes == (("1", "filename_prefix"), ("3", "prefix"), ("9", "filename_prefix"))
    assert needs.folders == (("2", "output_path"),)


@pytest.mark.parametrize(
    ("class_type", "inputs", "name"),
    [
        ("LoadImageDataSetFromFolder", {"folder": "cats"}, "folder"),
        ("LoadTrainingDataset", {"folder_name": "set"}, "folder_name"),
        ("PackLoadFolder", {"directory": "cats"}, "directory"),
        ("PackImage", {"id": "abc"}, "id"),
        ("SaveImageDataSetToFolder", {"folder_name": "set", "filename_prefix": "x"}, "folder_name"),
    ],
)
def test_folders_and_ids_are_with_the_first(class_type: str, inputs: dict[str, Any], name: str) -> None:
    needs = needs_of({"1": of(class_type, **inputs)})
    assert needs.first_only == ((class_type, name),)
    assert (needs.files, needs.prefixes) == ((), ())
    assert needs.folders == ((("1", name),) if class_type == "SaveImageDataSetToFolder" else ()), (
        "in none of a ComfyUI's"
    )


def test_a_large_workflow_is_not_looked_through_at_once() -> None:
    nodes = {str(number): of("CheckpointLoaderSimple", ckpt_name="a.safetensors") for number in range(50)}
    with pytest.raises(TooMuch):
        needs_of(nodes, effort=99)
    assert needs_of(nodes, effort=100).models == ("a.safetensors",)


@pytest.mark.parametrize("is_whole", [True, False])
def test_of_classes_that_may_differ_what_a_node_has_is_needed(is_whole: bool) -> None:
    differing = frozenset({"KSampler"} if is_whole else ())
    context = replace(ALICE, catalogue=Catalogue(ALICE.catalogue.classes, differing, is_whole))
    sampler = of("KSampler", sampler_name="euler", model=["9", 0])
    nodes = {"1": sampler, "2": sampler, "3": of("KSampler", sampler_name="euler"), "9": of("Several", loras=[])}
    with pytest.raises(TooMuch):
        needs_of(nodes, context=context, effort=100)
    node_class = ALICE.catalogue.classes["KSampler"]
    shapes = needs_of(nodes, context=context).shapes
    assert shapes[:2] == tuple(
        ("KSampler", names, shape_of(node_class, names)) for names in (("model", "sampler_name"), ("sampler_name",))
    )
    assert [name for name, _, _ in shapes[2:]] == ([] if is_whole else ["Several"])


def test_very_many_shapes_are_few() -> None:
    context = replace(ALICE, catalogue=Catalogue(ALICE.catalogue.classes, frozenset({"KSampler", "Several"})))
    nodes = {str(number): of("KSampler", **{f"x{number}": 1}) for number in range(MAX_SHAPES + 9)}
    shapes = needs_of(nodes | {"last": of("Several", loras=[])}, context=context).shapes
    assert len(shapes) == MAX_SHAPES + 2
    node_class = ALICE.catalogue.classes["KSampler"]
    assert shapes[-2:] == (
        ("KSampler", None, shape_of(node_class)),
        ("Several", None, shape_of(ALICE.catalogue.classes["Several"])),
    )


SURE = {"1": of("EmptyImage", width=8), "2": of("SaveImage", images=["1", 0], filename_prefix="x")}


@pytest.mark.parametrize("is_placed", [True, False])
def test_needs_are_recorded_where_there_are_several(is_placed: bool) -> None:
    context = caller_of("alice", is_placed=is_placed, labels=("24gb",))
    asked = request_of(context, method="POST", raw=json.dumps({"prompt": SURE}).encode())
    steps, _ = drive(submit(asked), ClaimedJob("id", 1, True, 5), 1.0, reply_of({"node_errors": {}}))
    [record] = [step for step in steps if isinstance(step, RecordJob)]
    if not is_placed:
        assert record.extras.needs == b""
        return
    assert read_needs(record.extras.needs) == Needs(
        classes=("EmptyImage", "SaveImage"), labels=("24gb",), prefixes=(("2", "filename_prefix"),)
    )


def test_what_none_of_the_callers_comfyuis_can_run_is_refused() -> None:
    able = Candidate("gpu-1", ALICE.catalogue)
    for comfyuis in ((able,), (Candidate("gpu-2", Catalogue()), able), (Candidate("gpu-2", None),)):
        context = replace(ALICE, comfyuis=comfyuis)
        assert needs_of(SURE, context=context).classes == ("EmptyImage", "SaveImage")
    with pytest.raises(Violation) as caught:
        needs_of(SURE, context=replace(ALICE, comfyuis=(Candidate("gpu-2", Catalogue()),)))
    assert (caught.value.reason, caught.value.details) == (Reason.NOWHERE_TO_RUN, "gpu-2 has not class EmptyImage")


def test_who_has_no_comfyui_at_all_is_told_so() -> None:
    asked = request_of(caller_of("alice", comfyuis=()), method="POST", raw=json.dumps({"prompt": SURE}).encode())
    with pytest.raises(Violation) as caught:
        drive(submit(asked))
    assert (caught.value.reason, caught.value.message) == (Reason.NOWHERE_TO_RUN, NOBODY)


@pytest.mark.parametrize("count", [MAX_FILES, MAX_FILES + 1])
def test_one_that_reads_very_many_files_stays_with_the_first(count: int) -> None:
    nodes = {str(number): of("LoadImage", image=f"{number}.png") for number in range(count)}
    needs = needs_of(nodes, effort=1e6)
    is_many = count > MAX_FILES
    assert (len(needs.files), needs.first_only) == ((0, (("LoadImage", "image"),)) if is_many else (count, ()))


def test_what_is_recorded_is_never_large() -> None:
    names = [f"{number}{'x' * 240}.png" for number in range(MAX_FILES)]
    reading = {str(number): of("LoadImage", image=name) for number, name in enumerate(names)}
    saving = {"save": of("SaveImage", images=["1", 0], filename_prefix="x")}
    needs = needs_of(saving | reading, effort=1e6)
    assert needs == Needs(prefixes=(("save", "filename_prefix"),), first_only=(("SaveImage", "*"),))
    needs = needs_of(saving | reading | {"set": of("LoadTrainingDataset", folder_name="x")}, effort=1e6)
    assert needs.first_only == (("LoadTrainingDataset", "folder_name"),)


def test_a_workflow_that_saves_under_very_many_names_is_refused() -> None:
    def saving(count: int) -> dict[str, Any]:
        return {
            "n" * 100: of("SaveImage", images=["1", 0], **{f"{number}.filename_prefix": "x" for number in range(count)})
        }

    few = needs_of(saving(400), effort=1e6)
    assert len(few.prefixes) == 400
    assert len(few.to_bytes()) <= MAX_BYTES
    with pytest.raises(Violation) as refused:
        needs_of(saving(600), effort=1e6)
    assert refused.value.reason is Reason.POLICY_VIOLATION

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from policy.call import ClientReply, UpstreamCall
from policy.catalogue import read_catalogue
from policy.fitting import Candidate
from policy.routes import CachedReply
from policy.rule_context import OwnFiles, RuleContext, RuleInput
from policy.rules import catalog as rules
from policy.rules.catalog import HIDDEN_FOLDERS
from policy.table import TABLE
from policy.violation import Reason
from tests.policy.names import HOSTILE
from tests.policy.tenants import CATALOGUE, OBJECT_INFO, caller_of, is_refused, request_of

FILES = OwnFiles(
    input=("new.png", "old.JPG", "pasted/p.png", "clip.mp4", "song.wav", "a.latent", "3d/deep/m.glb", "m.glb", "cats/1/c.png", ".hidden.png"),
    output=("out_00001_.png", "sub/out_00002_.png"),
)  # fmt: skip
ROOT_FILES = ["new.png", "old.JPG", "clip.mp4", "song.wav", "a.latent", "m.glb", "shared.pdf", "example.png"]
ALICE = caller_of("alice", files=FILES)


def object_info(value: Any, request: RuleInput) -> dict[str, Any]:
    """As `describe_all` does, by a document, and without the policy's bounds."""
    found = (request.context.catalogue.get(name) for name in value)
    return {each.name: rules.describe_class(each, request.context) for each in found if each is not None}


def described(name: str, context: RuleContext = ALICE) -> Any:
    return object_info({name: OBJECT_INFO[name]}, request_of(context))[name]


def choices_of(name: str, input_name: str, context: RuleContext = ALICE) -> Any:
    spec = described(name, context)["input"]["required"][input_name]
    return spec[0] if isinstance(spec[0], list) else spec[1].get("options")


@pytest.mark.parametrize(
    ("name", "input_name", "choices"),
    [
        ("LoadImage", "image", [".hidden.png", "example.png", "new.png", "old.JPG"]),
        ("LoadLatent", "latent", ["a.latent"]),
        ("LoadAudio", "audio", ["clip.mp4", "song.wav"]),
        ("Load3D", "model_file", ["none", "3d/deep/m.glb"]),
        ("LoadImageOutput", "image", None),
        ("GeminiInputFiles", "file", ["shared.pdf"]),
        ("LoadImageDataSetFromFolder", "folder", ["3d", "3d/deep", "cats", "cats/1", "pasted"]),
        ("PackLoadFolder", "directory", ["3d", "3d/deep", "cats", "cats/1", "pasted"]),
        ("CheckpointLoaderSimple", "ckpt_name", ["a.safetensors"]),
        ("PackLoadVideo", "mode", ["fast", "slow"]),
    ],
)
def test_lists_show_the_tenants_own_files(name: str, input_name: str, choices: Any) -> None:
    assert choices_of(name, input_name) == choices


def test_a_list_of_no_known_kind_shows_all_files_of_the_root() -> None:
    assert choices_of("PackLoadEmpty", "video") == sorted(
        ["new.png", "old.JPG", "clip.mp4", "song.wav", "a.latent", "m.glb", ".hidden.png", "example.png", "shared.pdf"]
    )


def test_without_a_view_of_the_folders_only_shared_inputs_are_listed() -> None:
    blind = caller_of("alice")
    assert choices_of("LoadImage", "image", blind) == ["example.png"]
    assert choices_of("LoadImageDataSetFromFolder", "folder", blind) == []


def test_nothing_of_a_neighbours_is_described() -> None:
    shown = str(object_info(OBJECT_INFO, request_of(ALICE)))
    assert "bob" not in shown
    assert "tenants/" not in shown


def test_classes_without_files_are_the_very_same() -> None:
    node_class = CATALOGUE.classes["CLIPTextEncode"]
    assert rules.describe_class(node_class, ALICE) is node_class.document


def test_the_catalogue_is_not_changed() -> None:
    before = copy.deepcopy(OBJECT_INFO)
    object_info(OBJECT_INFO, request_of(ALICE))
    assert before == OBJECT_INFO


def test_all_permitted_classes_are_described() -> None:
    shown = dict(rules.describe_all(request_of(ALICE)))
    assert set(shown) == set(CATALOGUE.classes) - {"AddTextPrefix"}


def test_one_class_is_picked_from_all() -> None:
    one, whole = (TABLE.match("GET", ("object_info", *more)) for more in (("Gone",), ()))
    assert one is not None
    assert whole is not None
    assert isinstance(one.route.tenant, CachedReply)
    assert one.route.tenant.picks in one.parameters
    assert isinstance(whole.route.tenant, CachedReply)
    assert whole.route.tenant.picks is None
    assert one.route.tenant.rule is whole.route.tenant.rule


def test_outputs_are_listed_by_a_route_of_their_own() -> None:
    document = {
        "Pick": {"input": {"required": {"image": [["bob.png"], {"image_upload": True, "image_folder": "output"}]}}}
    }
    context = caller_of("alice", catalogue=read_catalogue(document))
    shown = object_info(document, request_of(context))["Pick"]["input"]["required"]["image"]
    assert shown == [[], {"image_upload": True, "image_folder": "output"}]


def test_sections_of_another_shape_stay() -> None:
    document = {"LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}, "optional": None}}}
    context = caller_of("alice", catalogue=read_catalogue(document))
    shown = object_info(document, request_of(context))["LoadImage"]
    assert shown == {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}, "optional": None}}


def files_request(kind: str) -> RuleInput:
    return request_of(ALICE, parameters={"directory_type": kind})


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("input", ["bob.png [input]"], [f"{name} [input]" for name in ROOT_FILES]),
        ("input", ["bob.png"], ROOT_FILES),
        ("output", [], ["out_00001_.png [output]"]),
        ("output", ["bob.png"], ["out_00001_.png"]),
        ("output", [5], ["out_00001_.png"]),
        ("temp", ["bob.png [temp]"], []),
        ("models", None, []),
    ],
)  # fmt: skip
def test_file_lists_are_ones_own_in_the_form_of_the_version(kind: str, value: Any, shown: list[str]) -> None:
    assert rules.list_files(value, files_request(kind)) == shown
    assert rules.files_of(files_request(kind)).target == f"/internal/files/{kind}"


@pytest.mark.parametrize("is_placed", [True, False])
def test_what_another_comfyui_made_is_listed_as_what_the_first_made(is_placed: bool) -> None:
    files = OwnFiles(output=("@gpu-2/a.png", "@gpu-2/deep/b.png", "c.png", "deep/d.png", "@gpu-2"))
    context = caller_of("alice", files=files, is_placed=is_placed)
    shown = rules.list_files([], request_of(context, parameters={"directory_type": "output"}))
    expected = ["@gpu-2/a.png", "c.png", "@gpu-2"] if is_placed else ["c.png", "@gpu-2"]
    assert shown == [f"{name} [output]" for name in expected]


def test_system_stats_tell_no_command_line() -> None:
    value = {
        "system": {"os": "linux", "comfyui_version": "0.33.0", "argv": ["main.py", "--secret"], "cwd": "/srv"},
        "devices": [{"name": "cpu", "vram_total": 5, "path": "/dev"}, "odd"],
        "paths": ["/srv"],
    }
    assert rules.system_stats(value, request_of(ALICE)) == {
        "system": {"os": "linux", "comfyui_version": "0.33.0", "argv": []},
        "devices": [{"name": "cpu", "vram_total": 5}],
    }
    odd_values: list[Any] = [None, {"system": [], "devices": {}}]
    for irregular in odd_values:
        assert rules.system_stats(irregular, request_of(ALICE)) == {"system": {"argv": []}, "devices": []}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"assets": True, "extension": {"manager": {}}, "max_upload_size": 5}, {"assets": False, "max_upload_size": 5}),
        ({"max_upload_size": 5}, {"max_upload_size": 5}),
        (None, {}),
    ],
)
def test_features_are_those_that_tenants_have(value: Any, shown: Any) -> None:
    assert rules.features(value, request_of(ALICE)) == shown


def test_folders_of_models_are_named_without_their_paths() -> None:
    names = ["checkpoints", *sorted(HIDDEN_FOLDERS), "loras"]
    folders = [{"name": name, "folders": ["/srv/models"], "extensions": [".pt"]} for name in names]
    assert rules.model_folders(names, request_of(ALICE)) == ["checkpoints", "loras"]
    assert rules.described_model_folders([*folders, {"folders": []}, "odd"], request_of(ALICE)) == [
        {"name": "checkpoints", "folders": [], "extensions": [".pt"]},
        {"name": "loras", "folders": [], "extensions": [".pt"]},
        {"folders": []},
    ]
    paths = {name: ["/srv/models"] for name in names}
    assert rules.folder_paths(paths, request_of(ALICE)) == {
        "checkpoints": ["models/checkpoints"],
        "loras": ["models/loras"],
    }
    models = [{"name": "a.pt", "pathIndex": 0, "size": 5, "path": "/srv"}, "odd"]
    assert rules.described_models(models, request_of(ALICE)) == [{"name": "a.pt", "pathIndex": 0, "size": 5}]
    for rule in (rules.model_folders, rules.described_model_folders, rules.described_models):
        assert rule(None, request_of(ALICE)) == []
    assert rules.folder_paths(None, request_of(ALICE)) == {}


def model_request(folder: str, **parameters: str) -> RuleInput:
    segments = ("models", folder, *parameters.values())
    return request_of(ALICE, segments=segments, parameters={"folder": folder} | parameters, query={"x": "y"})


def test_models_are_read_only_and_shared() -> None:
    assert rules.in_model_folder(model_request("loras")).target == "/models/loras"
    assert rules.in_model_folder(model_request("loras", filename="a/b.pt")).target == "/models/loras/a%2Fb.pt"


@pytest.mark.parametrize("folder", sorted(HIDDEN_FOLDERS))
def test_what_is_no_folder_of_models_is_not_there(folder: str) -> None:
    assert is_refused(rules.in_model_folder, model_request(folder), reason=Reason.NOT_FOUND)
    request = request_of(ALICE, parameters={"folder_name": folder}, query={"filename": "a.safetensors"})
    assert is_refused(rules.view_metadata, request, reason=Reason.NOT_FOUND)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_models_are_refused(name: str) -> None:
    assert is_refused(rules.in_model_folder, model_request(name), reason=Reason.NAME_REFUSED)
    assert is_refused(rules.in_model_folder, model_request("loras", filename=name), reason=Reason.NAME_REFUSED)
    for folder, filename in ((name, "a.safetensors"), ("loras", name)):
        request = request_of(ALICE, parameters={"folder_name": folder}, query={"filename": filename})
        assert is_refused(rules.view_metadata, request, reason=Reason.NAME_REFUSED)


def test_a_header_of_a_model_is_asked_for() -> None:
    request = request_of(ALICE, parameters={"folder_name": "loras"}, query={"filename": "a b.safetensors", "x": "y"})
    assert rules.view_metadata(request).target == "/view_metadata/loras?filename=a%20b.safetensors"
    nameless = request_of(ALICE, parameters={"folder_name": "loras"})
    assert is_refused(rules.view_metadata, nameless, reason=Reason.NOT_FOUND)


def test_lists_of_several_comfyuis_are_one_with_each_name_once() -> None:
    assert rules.all_of([["a", "b"], None, {}, ["c", "a", 3, None]]) == ["a", "b", "c"]
    described = [[{"name": "a", "pathIndex": 0}], [{"name": "a", "pathIndex": 1}, {"name": "b"}, {}]]
    assert rules.all_of(described) == [{"name": "a", "pathIndex": 0}, {"name": "b"}]
    assert rules.all_of([]) == []
    assert (rules.first_of([{"a": 1}, {"b": 2}]), rules.first_of([])) == ({"a": 1}, {})


def test_a_preview_of_a_model_is_the_first_ones_that_runs_the_callers_jobs() -> None:
    request = model_request("loras", path_index="0", filename="a.pt")
    assert rules.model_preview(request).comfyui == ""
    for names in (("gpu-1", "gpu-2"), ("gpu-2",)):
        context = replace(ALICE, comfyuis=tuple(Candidate(name, None) for name in names))
        call = rules.model_preview(replace(request, context=context))
        assert (call.comfyui, call.target) == (names[0], "/models/loras/0/a.pt")
    nobodys = replace(request, context=replace(ALICE, comfyuis=()))
    assert is_refused(rules.model_preview, nobodys, reason=Reason.NOT_FOUND)


@pytest.mark.parametrize("folder", sorted(HIDDEN_FOLDERS))
def test_a_folder_that_the_gate_hides_is_empty(folder: str) -> None:
    """Clients ask for all folders that they know, and stop at the first 404."""
    reply = rules.models_in(model_request(folder))
    assert isinstance(reply, ClientReply)
    assert (reply.status, reply.body) == (200, [])


def test_a_folder_of_models_is_listed_by_comfyui() -> None:
    call = rules.models_in(model_request("loras"))
    assert isinstance(call, UpstreamCall)
    assert call.target == "/models/loras"

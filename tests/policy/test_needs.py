"""policy/needs.py and policy/makers.py"""

from __future__ import annotations

import pytest

from policy.call import UpstreamPath
from policy.makers import made_by, maker_of
from policy.namespace import Folder
from policy.needs import NO_NEEDS, Needs, read_needs


@pytest.mark.parametrize(
    "needs",
    [
        NO_NEEDS,
        Needs(
            ("KSampler", "LoadImage"),
            (("KSampler", "sampler_name", "euler"),),
            ("a.safetensors",),
            ("24gb",),
            ((Folder.INPUT, UpstreamPath("tenants/alice/x.png")),),
            (("9", "filename_prefix"),),
            (("9", "output_path"),),
            (("LoadTrainingDataset", "folder_name"),),
            (("KSampler", ("model", "sampler_name"), "abc"), ("KSampler", None, "def")),
        ),
    ],
)
def test_needs_are_read_as_they_were_written(needs: Needs) -> None:
    assert read_needs(needs.to_bytes()) == needs


def test_a_path_tells_which_comfyui_made_it() -> None:
    made = made_by(UpstreamPath("tenants/alice/cats/ComfyUI"), "gpu-2")
    assert made == "tenants/alice/@gpu-2/cats/ComfyUI"
    assert maker_of(made) == "gpu-2"
    assert maker_of("tenants/alice/@gpu-2") == "gpu-2"
    assert maker_of("tenants/alice/cats/@gpu-2/x") == ""
    assert maker_of("tenants/alice/@GPU/x") == ""
    assert maker_of("elsewhere/alice/@gpu-2/x") == ""


def test_a_workflow_of_one_comfyui_runs_on_another() -> None:
    made = UpstreamPath("tenants/alice/@gpu-2/ComfyUI")
    assert made_by(made, "gpu-3") == "tenants/alice/@gpu-3/ComfyUI"
    assert made_by(made, "") == "tenants/alice/ComfyUI"
    assert made_by(UpstreamPath("tenants/alice/@gpu-2/@gpu-3/x"), "gpu-2") == "tenants/alice/@gpu-2/x"


def test_the_tenants_folder_itself_has_a_folder_of_each_comfyui_in_it() -> None:
    assert made_by(UpstreamPath("tenants/alice"), "gpu-2") == "tenants/alice/@gpu-2"
    assert made_by(UpstreamPath("tenants/alice/@gpu-2"), "") == "tenants/alice"
    assert made_by(UpstreamPath("tenants/alice/@gpu-2"), "gpu-3") == "tenants/alice/@gpu-3"

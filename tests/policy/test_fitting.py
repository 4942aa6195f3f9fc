from __future__ import annotations

import pytest

from policy.catalogue import read_catalogue
from policy.fitting import Candidate, check_fits, fits
from policy.merging import shape_of
from policy.needs import NO_NEEDS, Needs
from policy.violation import Reason, Violation
from tests.policy.tenants import node

CATALOGUE = read_catalogue(
    {
        "Loader": node({"ckpt_name": [["a.safetensors", "b.safetensors"]], "mode": [["fast"]]}),
        "Grow": node(
            {
                "list": [
                    "COMFY_AUTOGROW_V3",
                    {"template": {"input": {"required": {"model": [["m.pt"]]}}, "prefix": "model", "max": 2}},
                ],
                "kind": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "x", "inputs": {"required": {"lora": [["l.pt"]]}}},
                            {"key": "y", "inputs": {"required": {"lora": [["k.pt"]]}}},
                        ]
                    },
                ],
                "slot": ["COMFY_DYNAMICSLOT_V3", {"inputs": {"optional": {"vae": [["v.pt"]]}}}],
            }
        ),
    }
)
LOADER = CATALOGUE.classes["Loader"]


@pytest.mark.parametrize(
    ("needs", "missing"),
    [
        (NO_NEEDS, ""),
        (Needs(classes=("Loader",), choices=(("Loader", "ckpt_name", "a.safetensors"),), labels=("24gb",)), ""),
        (Needs(labels=("24gb", "fast")), "label fast"),
        (Needs(classes=("Loader", "Other")), "class Other"),
        (
            Needs(choices=(("Loader", "ckpt_name", "c.safetensors"),), models=("c.safetensors",)),
            "the model c.safetensors of Loader.ckpt_name",
        ),
        (Needs(choices=(("Loader", "mode", "slow"),)), "the choice slow of Loader.mode"),
        (Needs(choices=(("Loader", "gone", "x"),)), "the choice x of Loader.gone"),
        (
            Needs(
                choices=(
                    ("Grow", "list.model1", "m.pt"),
                    ("Grow", "kind", "y"),
                    ("Grow", "kind.lora", "k.pt"),
                    ("Grow", "kind.lora", "l.pt"),
                    ("Grow", "slot.vae", "v.pt"),
                )
            ),
            "",
        ),
        (Needs(choices=(("Grow", "kind", "z"),)), "the choice z of Grow.kind"),
        (Needs(shapes=(("Loader", ("mode",), shape_of(LOADER, ("mode",))),)), ""),
        (Needs(shapes=(("Loader", ("mode",), "another"),)), "class Loader as the first one has it"),
    ],
)
def test_what_is_missing_is_said(needs: Needs, missing: str) -> None:
    assert fits(needs, CATALOGUE, {"24gb"}) == missing


FIRST = Candidate("gpu-1", CATALOGUE, is_first=True)
SECOND = Candidate("gpu-2", read_catalogue({"Other": node({})}), ("24gb",))
SILENT = Candidate("gpu-3", None)


@pytest.mark.parametrize(
    ("needs", "candidates", "details"),
    [
        (Needs(classes=("Loader",)), (SECOND, FIRST), ""),
        (Needs(classes=("Loader", "Other")), (FIRST, SECOND), "gpu-1 has not class Other; gpu-2 has not class Loader"),
        (Needs(classes=("Loader", "Other")), (FIRST, SECOND, SILENT), ""),
        (Needs(labels=("24gb",)), (FIRST, SILENT), "gpu-1 has not what this function asks for; gpu-3 has not what this function asks for"),
        (Needs(labels=("24gb",)), (FIRST, SECOND), ""),
        (Needs(first_only=(("Load", "folder"),)), (FIRST, SECOND), ""),
        (Needs(first_only=(("Load", "folder"),)), (SECOND,), "gpu-2 has not what Load.folder reads or writes"),
    ],
)  # fmt: skip
def test_what_nobody_can_run_is_refused(needs: Needs, candidates: tuple[Candidate, ...], details: str) -> None:
    if not details:
        check_fits(needs, candidates)
        return
    with pytest.raises(Violation) as caught:
        check_fits(needs, candidates)
    assert (caught.value.reason, caught.value.details) == (Reason.NOWHERE_TO_RUN, details)


def test_very_many_that_lack_something_are_not_all_told() -> None:
    with pytest.raises(Violation) as caught:
        check_fits(Needs(classes=("X" * 300,)), [FIRST] * 9)
    assert len(caught.value.details) == 1000

from __future__ import annotations

import pytest

from policy.catalogue import read_catalogue
from policy.fitting import fits
from policy.merging import shape_of
from policy.needs import NO_NEEDS, Needs
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

"""A call whose job one of several ComfyUIs runs is written as its whole workflow is, wherever its client has it saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.policy.functions.calling import ALICE, OPEN, both, fills, function_of, kept, known, text

SAVED: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "own.png", "upload": "image"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def test_what_is_saved_into_the_folder_of_a_comfyui_is_saved_where_it_runs() -> None:
    context = replace(ALICE, is_placed=True)
    function = function_of(SAVED, {"name": text("2.filename_prefix")})
    template = known(function, OPEN, {"name": "a"}, context=context)
    for name in ("@gpu-2/x", "@gpu-2/@gpu-2/x", "@gpu-2"):
        assert fills(template, {"name": f"tenants/alice/{name}"}, context=context)
        both(function, OPEN, {"name": name}, context=context)
    own = {**SAVED, "2": {**SAVED["2"], "inputs": {**SAVED["2"]["inputs"], "filename_prefix": "@gpu-2/x"}}}
    function = function_of(own, {"name": text("1.image")})
    for name in ("own.png", "other.png"):
        assert kept(function, OPEN, {"name": name}, context=context) is None

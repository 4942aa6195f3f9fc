"""`warmup` of `[upstream]` and `[[comfyui]]`, held against the functions that there are."""

from __future__ import annotations

from collections.abc import Mapping

from policy.functions.function import Function
from policy.warmup import missing_argument
from proxy.config.comfyui import FIRST, ComfyUISettings
from proxy.config.functions import FOLDER
from proxy.config.reader import Config, Mistake


def find_bad_warmups(config: Config, functions: Mapping[str, Function]) -> list[Mistake]:
    """Functions that are not there, and those that cannot run there by themselves."""
    return [
        Mistake(f"comfyui[{index}].warmup" if config.comfyui else "upstream.warmup", None, words)
        for index, comfyui in enumerate(config.comfyuis)
        for name in comfyui.warmup
        if (words := _find_mistake(name, functions.get(name), comfyui))
    ]


def _find_mistake(name: str, function: Function | None, comfyui: ComfyUISettings) -> str:
    if function is None:
        return f"there is no {FOLDER}/{name}.toml that can be used"
    if parameter := missing_argument(function):
        return f"{name} does not run by itself: its parameter {parameter} has no default"
    lacking = [label for label in function.settings.labels if label not in comfyui.labels]
    if lacking and comfyui.name != FIRST:  # the only one of `[upstream]` has no labels, and runs all
        return f"{name} runs where the label {lacking[0]} is, and never here"
    return ""

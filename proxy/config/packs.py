"""Reads the pack files that come with comfygate. Trusts them: they are part of the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from policy.custom_routes import PackSettings


@cache
def load_packs() -> Mapping[str, PackSettings]:
    """Every pack by the name that `[upstream] packs` takes, sorted. Read once."""
    found = sorted(entry.name for entry in files("policy.packs").iterdir() if entry.name.endswith(".toml"))
    return {name.removesuffix(".toml"): _read(name) for name in found}


def _read(name: str) -> PackSettings:
    text = files("policy.packs").joinpath(name).read_text(encoding="utf-8")
    return PackSettings.model_validate(tomllib.loads(text))

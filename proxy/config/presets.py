"""Reads the presets that come with comfygate. Trusts them: they are part of the package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final

NAMES: Final = ("core-image", "core-video", "core-audio", "api-nodes")


@cache
def load_presets() -> dict[str, frozenset[str]]:
    """Class names by preset, as `@core-image` without the @. Read once."""
    return {name: frozenset().union(*load_groups(name).values()) for name in NAMES}


@cache
def describe_presets() -> dict[str, str]:
    """What each preset is, in a few words: the first sentence of its file."""
    return {name: read_text(name).removeprefix("# ").partition(".")[0] for name in NAMES}


@cache
def load_excluded() -> dict[str, str]:
    """Classes that stand in no preset on purpose, each with the reason."""
    return {name: reason for group in read_file("excluded").values() for name, reason in group.items()}


@cache
def load_unclassified() -> frozenset[str]:
    """Classes that nobody has sorted yet."""
    return frozenset().union(*load_groups("unclassified").values())


def load_groups(name: str) -> dict[str, list[str]]:
    """The lists of one file, by group."""
    return read_file(name)


def read_file(name: str) -> dict[str, Any]:
    return tomllib.loads(read_text(name))


def read_text(name: str) -> str:
    """The file of a preset, of `excluded` or of `unclassified`, with its comments."""
    return files("policy.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")

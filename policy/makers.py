"""Which ComfyUI made a file: the first one writes into the tenant's folder itself, each other one into a folder `@NAME` in it."""

from __future__ import annotations

import re
from typing import Final

from policy.call import UpstreamPath
from policy.namespace import ROOT

_NAME: Final = r"@([a-z0-9][a-z0-9-]{0,31})"
_MADE: Final = re.compile(rf"({ROOT}/[^/]+/){_NAME}(?:/|$)")
_UNTOLD: Final = re.compile(rf"({ROOT}/[^/]+/)@[^/]*[%[{{<$][^/]*(?:/|$)")
"""SECURITY: a folder that may become one of these when what stands in it is filled in: `@gpu-%width%` of a picture two pixels wide. What one ComfyUI has
saved there would be told, looked for and counted as another one's (test_dispatch.py::test_no_name_becomes_that_of_a_comfyui)."""
_FOLDER: Final = re.compile(rf"{_NAME}/")


def maker_of(path: str) -> str:
    """The name in an upstream path, "" where there is none."""
    found = _MADE.match(path)
    return found[2] if found else ""


def without_maker(name: str) -> str:
    """A client's name of a file, without the folder of who made it."""
    found = _FOLDER.match(name)
    return name[found.end() :] if found else name


def made_by(path: UpstreamPath, comfyui: str) -> UpstreamPath:
    """An upstream path, or the beginning of one, as this ComfyUI writes there, whichever wrote it before. comfyui: "" for the first."""
    root, rest = _split(path)
    return UpstreamPath("/".join(part for part in (root, comfyui and f"@{comfyui}", rest) if part))


def _split(path: str) -> tuple[str, str]:
    """The tenant's folder, and what is in it."""
    while found := _MADE.match(path) or _UNTOLD.match(path):
        path = found[1] + path[found.end() :]
    root, tenant, *rest = path.split("/", 2)
    return f"{root}/{tenant}", "".join(rest)

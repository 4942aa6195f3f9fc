"""Where the bytes of an asset are: what an answer is made of."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from policy.call import Effect, UpstreamCall, UpstreamPath
from policy.functions.conversion import Recipe
from policy.namespace import Folder, Namespace
from policy.rules.files import view_of
from policy.v2.assets import Asset
from policy.values import value


@value
class StoredFile:
    """An answer that is a file. call: asks ComfyUI for it, where the gate does not serve it from disk. stamp: see Asset."""

    folder: Folder
    path: UpstreamPath
    call: UpstreamCall
    stamp: str = ""


@value
class StoredText:
    """An answer that is a text which the gate has itself."""

    body: bytes
    name: str


@value
class DerivedFile:
    """An answer that is a file which the gate makes of another one. source: of which."""

    asset: Asset
    recipe: Recipe
    source: StoredFile


GivenFile = StoredFile | StoredText | DerivedFile
FileGenerator = Generator[Effect, Any, GivenFile]
"""A rule whose answer is a file; see RuleGenerator."""


def stored_file(asset: Asset, names: Namespace, has_temp_file: Callable[[str], bool], method: str) -> StoredFile:
    """Of an asset that is no text."""
    folder = asset.folder
    assert folder is not None, "a text has none"
    path = names.readable_to_upstream(asset.path, folder, (), has_temp_file)
    return StoredFile(folder, path, view_of(method, folder, path), asset.stamp)

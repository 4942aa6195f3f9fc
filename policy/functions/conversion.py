"""Results in another form than the job made them, or without their workflow: what is asked for, what a client is told of it, and what it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policy.functions.settings import OutputSettings
from policy.v2.assets import Asset, SignedLink
from policy.values import value

QUALITY: Final = 80
"""Where the function says none."""
LOSSLESS: Final = frozenset({"png"})
TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "png": ("image/png", ".png"),
    "jpeg": ("image/jpeg", ".jpg"),
    "webp": ("image/webp", ".webp"),
    "avif": ("image/avif", ".avif"),
}
"""Media type and extension, by format."""
_STRIPPED: Final = "searched"
"""In the mark of what loses its workflow. Another word for each change of what goes with it, or is refused: what was written before, with the names "" and
"stripped", is given no more."""


@value
class Recipe:
    """What becomes of a file. format: of the picture; "" for a file that only loses its workflow. quality: from 1 to 100; 0 of a format that has none."""

    format: str = ""
    quality: int = 0

    @property
    def mark(self) -> str:
        """Another one for everything that gives other bytes."""
        return f"{self.format or _STRIPPED}-{self.quality}"

    @classmethod
    def from_mark(cls, mark: str) -> Recipe:
        """The recipe of which this is the mark, or was."""
        name, _, quality = mark.rpartition("-")
        return cls(name if name in TYPES else "", int(quality))

    @staticmethod
    def is_given(mark: str) -> bool:
        """Whether what has this mark was made as it would be now."""
        return Recipe.from_mark(mark).mark == mark

    @property
    def words(self) -> str:
        """How it is given."""
        return f"as {self.format}" if self.format else "without its workflow"


@value
class Derived:
    """What became of it. hash: as an asset's. link: while there is a copy of it, for the answer that is just made."""

    size_bytes: int
    hash: str
    link: SignedLink | None = None


@value
class NotDerived:
    """why: a sentence for the client; "" where it is only not made yet."""

    why: str = ""


def recipe_of(output: OutputSettings, asset: Asset) -> Recipe | None:
    """None for what is given as it is. A converted picture has lost its workflow; a text that a node shows never had one."""
    if output.convert is not None:
        return Recipe(output.convert, 0 if output.convert in LOSSLESS else output.quality or QUALITY)
    return Recipe() if output.strip and asset.folder is not None else None


def type_of(asset: Asset, recipe: Recipe | None) -> str:
    """The media type under which it is given; the file's own where the recipe is not for it."""
    return TYPES[recipe.format][0] if recipe is not None and _changes(asset, recipe) else asset.content_type


def name_of(asset: Asset, recipe: Recipe | None) -> str:
    """The name under which it is given: `a.png` as `a.webp`."""
    if recipe is None or not _changes(asset, recipe):
        return asset.file_path
    stem, dot, _ = asset.file_path.rpartition(".")
    return (stem if stem and dot else asset.file_path) + TYPES[recipe.format][1]


def _changes(asset: Asset, recipe: Recipe) -> bool:
    """Whether it becomes another kind of file."""
    return bool(recipe.format) and not misfit(asset, recipe)


def misfit(asset: Asset, recipe: Recipe) -> str:
    """Why the recipe is not for this file, as far as its name tells: a sentence, or "" where it is."""
    if recipe.format and not asset.content_type.startswith("image/"):
        media_type = asset.content_type.partition(";")[0]
        return f"This output is no picture ({media_type}), so it cannot be given {recipe.words}."
    return ""

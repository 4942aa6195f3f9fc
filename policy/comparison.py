"""What some of several ComfyUIs have and others have not, in words for the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from policy.catalogue import Catalogue
from policy.merging import merge
from policy.workflow_needs import MODEL_ENDINGS

MAX_NAMED: Final = 5


def compare(catalogues: Mapping[str, Catalogue], *, is_whole: bool = False) -> list[str]:
    """Sentences, none where all have the same. catalogues: by the names of the ComfyUIs. is_whole: with all names, however many there are."""
    classes: dict[str, list[str]] = {}
    models: dict[str, list[str]] = {}
    for comfyui, catalogue in catalogues.items():
        for name in catalogue.classes:
            classes.setdefault(name, []).append(comfyui)
        for name in _models_of(catalogue):
            models.setdefault(name, []).append(comfyui)
    limit = None if is_whole else MAX_NAMED
    found = _tell(classes, "class", "classes", len(catalogues), limit)
    if differing := sorted(merge(list(catalogues.values())).catalogue.differing):
        words = "is" if len(differing) == 1 else "are"
        found.append(
            f"{_count(differing, 'class', 'classes')} {words} not the same everywhere: {_name(differing, limit)}. "
            "Are versions of a pack different? Jobs go where a class is as the first one has it."
        )
    return found + _tell(models, "model", "models", len(catalogues), limit)


def _models_of(catalogue: Catalogue) -> set[str]:
    return {
        choice
        for name in catalogue.classes
        for choices in catalogue.classes.choices_of(name).values()
        for choice in choices
        if choice.lower().endswith(MODEL_ENDINGS)
    }


def _tell(owners: Mapping[str, Sequence[str]], one: str, several: str, comfyuis: int, limit: int | None) -> list[str]:
    """One sentence for all that the same ComfyUIs have. owners: names of ComfyUIs by what they have."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, having in owners.items():
        if len(having) < comfyuis:
            groups.setdefault(tuple(having), []).append(name)
    return [
        f"Only {' and '.join(having)} {'has' if len(having) == 1 else 'have'} {_count(names, one, several)}: "
        f"{_name(sorted(names), limit)}."
        for having, names in sorted(groups.items())
    ]


def _count(names: Sequence[str], one: str, several: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else several}"


def _name(names: Sequence[str], limit: int | None) -> str:
    named = ", ".join(names[:limit])
    return named if limit is None or len(names) <= limit else f"{named} and {len(names) - limit} more"

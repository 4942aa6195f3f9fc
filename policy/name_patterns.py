"""Which classes a list of exact names, globs and presets means. Names match by code point: no case folding, no normalisation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """A compiled list. In a glob `*` stands for any characters and `?` for one; brackets are ordinary, since class names have them."""

    exact: frozenset[str]
    pattern: re.Pattern[str] | None = None

    def has(self, name: str) -> bool:
        return name in self.exact or (self.pattern is not None and self.pattern.fullmatch(name) is not None)


def is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def compile_patterns(entries: Iterable[str], presets: Mapping[str, frozenset[str]] | None = None) -> NamePatterns:
    """Compiles exact names, globs and, where `presets` are given, `@preset`s.

    Raises ValueError for an empty entry, for spaces around one, and for an unknown preset.
    """
    exact: set[str] = set()
    globs: list[str] = []
    for entry in entries:
        if not entry:
            raise ValueError("an empty name matches nothing: remove it")
        if presets is not None and entry.startswith("@"):
            exact |= _read_preset(entry, presets)
            continue
        exact.add(entry)
        if is_glob(entry):
            globs.append(_translate(entry))
    pattern = re.compile("|".join(globs)) if globs else None
    return NamePatterns(frozenset(exact), pattern)


def _read_preset(entry: str, presets: Mapping[str, frozenset[str]]) -> frozenset[str]:
    members = presets.get(entry[1:])
    if members is None:
        known = ", ".join(f"@{name}" for name in sorted(presets)) or "none"
        raise ValueError(f"there is no preset {entry}: known are {known}")
    return members


def _translate(glob: str) -> str:
    """A regular expression that takes linear time. A bracket stands for itself, since class names have them.

    SECURITY: values of inputs are matched too, and they come from clients. Atomic groups, as fnmatch makes them, never look back
    (test_name_patterns.py::test_globs_never_look_back).
    """
    return translate(glob.replace("[", "[[]"))

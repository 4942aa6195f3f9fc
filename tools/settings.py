"""What the models of the configuration say of each setting, and what config.toml says of it in its comments. For tools/docs.py."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeGuard, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from policy.sizes import parse_size
from proxy.config.identity import as_utc
from proxy.config.limits import parse_byte_rates
from proxy.config.server import parse_network, parse_origin, parse_prefix
from proxy.config.units import parse_duration, parse_rates

MUST: Final = "must be given"
ANY: Final = "*"
"""Stands in a path for a name that the operator chooses."""
_KINDS: Final[Mapping[Any, str]] = {
    parse_size: "size",
    parse_duration: "duration",
    parse_rates: "rate",
    parse_byte_rates: "rate of bytes",
    parse_network: "network",
    parse_origin: "origin",
    parse_prefix: "path prefix",
    as_utc: "date and time",
}
_TYPES: Final[Mapping[Any, str]] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    Path: "path",
}
_SIZES: Final = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))
_DURATIONS: Final = (("d", 86400), ("h", 3600), ("m", 60))
_HEADER = re.compile(r"(?:# )?(\[\[?)([a-z_.]+)\]\]?\s*(?:#\s*(.*))?")
_SETTING = re.compile(r"(?:# )?([a-z_]+) = (.*)")

SectionPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """path: of its section; default: as it would be written, "" for none."""

    path: SectionPath
    name: str
    kind: str
    default: str


@dataclass(frozen=True, slots=True)
class Section:
    """title: as the file's header is written, with <name> where the operator chooses."""

    path: SectionPath
    title: str
    settings: tuple[Setting, ...]


@dataclass(slots=True)
class Comments:
    """The words of config.toml: of sections, and of settings by section and name; "" for one that stands there without."""

    sections: dict[SectionPath, str] = field(default_factory=dict)
    settings: dict[tuple[SectionPath, str], str] = field(default_factory=dict)

    def of_section(self, path: SectionPath) -> str:
        return self.sections.get(path, "")

    def of_setting(self, path: SectionPath, name: str) -> str:
        return self.settings.get((path, name), "")


def read_comments(text: str) -> Comments:
    """Reads headers and settings, also those that are commented out, with the comment behind each."""
    comments = Comments()
    path: SectionPath = ()
    for line in text.splitlines():
        if header := _HEADER.fullmatch(line):
            path = _path_of(header[2])
            comments.sections[path] = (header[3] or "").strip()
            if len(path) > 2:  # [policies.default.inputs] is the setting `inputs` too
                comments.settings[path[:2], path[2]] = comments.sections[path]
        elif setting := _SETTING.fullmatch(line):
            comments.settings.setdefault((path, setting[1]), _comment_of(setting[2]))
    return comments


def _path_of(header: str) -> SectionPath:
    """The second part of `[tenants.acme]` is an example; that of `[limits.logins]` is not."""
    first, *rest = header.split(".")
    if not rest or (first, rest[0]) == ("limits", "logins"):
        return (first, *rest)
    return (first, ANY, *rest[1:])


def _comment_of(rest: str) -> str:
    """What stands behind the value: after the first " #" that is in no string."""
    quote = ""
    for index, character in enumerate(rest):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and rest[index - 1] == " ":
            return rest[index + 1 :].strip()
    return ""


def sections_of(model: type[BaseModel], path: SectionPath = (), title: str = "") -> Iterator[Section]:
    """A model's section and those below it, in the order of the fields. Only the outermost model has no section of its own."""
    below: list[tuple[type[BaseModel], SectionPath, str]] = []
    settings = []
    for name, info in model.model_fields.items():
        if info.exclude:
            continue
        found = _section_in(name, info, path)
        if found is None or path[:1] == (
            "policies",
        ):  # a policy's parts are described as settings, docs/policy.md has them in full
            settings.append(Setting(path, name, _kind_of(info), _default_of(info)))
        else:
            below.append(found)
    if path:
        yield Section(path, title, tuple(settings))
    for found_model, found_path, found_title in below:
        yield from sections_of(found_model, found_path, found_title)


def _section_in(name: str, info: FieldInfo, path: SectionPath) -> tuple[type[BaseModel], SectionPath, str] | None:
    """The section that a field stands for: a model, an optional one, a table of them by name, or a list of them."""
    annotation = info.annotation
    arguments = [part for part in get_args(annotation) if part is not type(None)]
    if _is_model(annotation):
        return annotation, (*path, name), f"`[{'.'.join((*path, name))}]`"
    if get_origin(annotation) is dict and _is_model(arguments[-1]):
        is_lifted = path == ("limits",)  # [limits.<name>] is kept in `named`
        prefix = path if is_lifted else (*path, name)
        return arguments[-1], (*prefix, ANY), f"`[{'.'.join((*prefix, '<name>'))}]`"
    if get_origin(annotation) is tuple and _is_model(arguments[0]):
        return arguments[0], (*path, name), f"`[[{name}]]`"
    if get_origin(annotation) in (Union, types.UnionType) and len(arguments) == 1 and _is_model(arguments[0]):
        return arguments[0], (*path, name), f"`[{'.'.join((*path, name))}]`"
    return None


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind_of(info: FieldInfo) -> str:
    kind = _words_of(info.annotation, tuple(info.metadata))
    low = next((part.ge for part in info.metadata if isinstance(part, Ge)), None)
    above = next((part.gt for part in info.metadata if isinstance(part, Gt)), None)
    high = next((part.le for part in info.metadata if isinstance(part, Le)), None)
    bounds = [
        f"at least {_write(low, kind)}" if low else "",
        "more than 0" if above == 0 else "",
        f"at most {_write(high, kind)}" if high is not None else "",
    ]
    return ", ".join(part for part in (kind, *bounds) if part)


def _words_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    for part in metadata:
        if isinstance(part, BeforeValidator) and part.func in _KINDS:
            return _KINDS[part.func]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words_of(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(_words_of(part) for part in arguments if part is not type(None))
    if origin is Literal:
        return ", ".join(f'`"{part}"`' for part in arguments)
    if origin in (tuple, frozenset):
        return f"list of {_words_of(arguments[0])}"
    if origin is dict:
        return f"table of {_words_of(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f'`"{member.value}"`' for member in annotation)
    if _is_model(annotation):
        return "tables"
    return _TYPES[annotation]


def _default_of(info: FieldInfo) -> str:
    if info.is_required():
        return MUST
    value = info.get_default(call_default_factory=True)
    kind = _words_of(info.annotation, tuple(info.metadata))
    if isinstance(value, frozenset):
        return "all"
    return _write(value, kind)


def _write(value: Any, kind: str) -> str:
    """A value as TOML writes it; nothing for None and for what is empty."""
    if value is None or value in ((), {}, "", Path()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if kind == "size" and isinstance(value, int):
        return next(
            (f'"{value // size}{unit}"' for unit, size in _SIZES if value >= size and value % size == 0), str(value)
        )
    if kind == "duration" and isinstance(value, int | float):
        return f'"{_write_duration(value)}"'
    if isinstance(value, Enum):
        return f'"{value.value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_write(part, "") for part in value) + "]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def _write_duration(seconds: float) -> str:
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    if seconds < 600:
        return f"{seconds:g}s"
    return next(f"{seconds / size:g}{unit}" for unit, size in _DURATIONS if seconds >= size and seconds % size == 0)

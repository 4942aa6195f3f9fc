"""Values that are made anew for every request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Made = TypeVar("Made")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[Made]) -> type[Made]:
    """A dataclass that nobody changes. The type checker holds that, and not the interpreter: there it takes three times as long to make one."""
    return dataclass(slots=True, unsafe_hash=True)(cls)

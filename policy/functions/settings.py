"""What stands in a function's file. Frozen values, unknown keys are errors."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from policy.settings import Number, Value

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Of a function, a parameter, an output: it stands in paths, forms and schemas."""
MAX_TEXT: Final = 100_000
FILES: Final = frozenset({"image", "mask", "audio", "video"})
ParameterType = Literal["text", "integer", "number", "boolean", "choice", "seed", "image", "mask", "audio", "video"]


def check_name(name: str) -> str:
    """Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: use lower-case letters, digits, '_' and '-', at most 63")
    return name


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ParameterSettings(_Settings):
    """`[parameters.NAME]`. fills: the inputs of nodes that it goes into, as "6.text". A parameter without a default must be given.

    A `seed` without a default is drawn at random, and told. A file (image, mask, audio, video) has no default but the one of the workflow.
    """

    type: ParameterType
    fills: Annotated[tuple[str, ...], Field(min_length=1)]
    title: str = ""
    description: str = ""
    default: Value | None = None
    min: Number | None = None
    max: Number | None = None
    multiple_of: Number | None = None
    max_length: Annotated[int, Field(strict=True, ge=1, le=MAX_TEXT)] | None = None
    choices: tuple[Value, ...] = ()
    optional: bool = False

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The same as node and input."""
        return tuple((node_id, name) for node_id, _, name in (place.partition(".") for place in self.fills))

    @field_validator("fills")
    @classmethod
    def _names_inputs(cls, fills: tuple[str, ...]) -> tuple[str, ...]:
        for name in fills:
            node, dot, input_name = name.partition(".")
            if not (node and dot and input_name):
                raise ValueError(f'{name!r} is not an input of a node: write "6.text"')
        return fills

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        numbers = self.type in ("integer", "number", "seed")
        for name in ("min", "max", "multiple_of"):
            if getattr(self, name) is not None and not numbers:
                raise ValueError(f"{name} is for numbers")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}: no value would pass")
        if self.type == "seed" and self.multiple_of is not None:
            raise ValueError("a seed is drawn from all numbers between min and max: multiple_of is not for it")
        if self.multiple_of is not None and self.multiple_of <= 0:
            raise ValueError("multiple_of must be greater than 0")
        if self.max_length is not None and self.type != "text":
            raise ValueError("max_length is for text")
        if bool(self.choices) != (self.type == "choice"):
            raise ValueError("choices belong to the type choice, which needs them")
        if self.optional and self.type not in FILES:
            raise ValueError("optional is for files: give any other parameter a default")
        if self.default is not None and self.type in FILES:
            raise ValueError("a file has no default but the one in the workflow: write optional = true to keep that")
        return self


class OutputSettings(_Settings):
    """`[outputs.NAME]`. node: the id of the node that makes it. convert: the kind of picture that it is given as, with this quality. strip: it is
    given without the workflow that ComfyUI writes into its files."""

    node: Annotated[str, Field(min_length=1)]
    title: str = ""
    convert: Literal["png", "jpeg", "webp", "avif"] | None = None
    quality: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None
    strip: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _has_a_quality_where_there_is_one(self) -> Self:
        if self.quality is not None and self.convert in (None, "png"):
            raise ValueError('quality is for convert = "jpeg", "webp" or "avif"')
        return self


class FunctionSettings(_Settings):
    """`functions/NAME.toml`. workflow: a file beside it in the API format, NAME.json where it is not named. policy: by which it is judged in the place
    of the tenant's own. labels: that the ComfyUI must have on which it runs. outputs: which of a job's files are its result; all of them where none is
    named."""

    title: str = ""
    description: str = ""
    workflow: str | None = None
    policy: str | None = None
    labels: tuple[str, ...] = ()
    parameters: dict[str, ParameterSettings] = Field(default_factory=dict)
    outputs: dict[str, OutputSettings] = Field(default_factory=dict)

    @field_validator("parameters", "outputs")
    @classmethod
    def _have_names(cls, parts: dict[str, object]) -> dict[str, object]:
        for name in parts:
            check_name(name)
        return parts

    @field_validator("workflow")
    @classmethod
    def _is_beside(cls, file: str | None) -> str | None:
        if file is not None and (not file.endswith(".json") or "/" in file or "\\" in file or file.startswith(".")):
            raise ValueError("name a .json file that lies beside this one")
        return file

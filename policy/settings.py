"""What an operator may say in `[policies.<name>]`. Frozen values, unknown keys are errors; policy/judge.py compiles them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from policy.sizes import Size

DEFAULT_MAX_NODES: Final = 200
DEFAULT_MAX_DEPTH: Final = 100
# ComfyUI walks a graph by recursion (comfy_execution/caching.py): what the policy permits stays far from where that ends.
HARD_MAX_DEPTH: Final = 400
HARD_MAX_NODES: Final = 5000

_FACTOR = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\??")


def _check_scalar(value: Any) -> Any:
    """Keeps TOML's own types: pydantic would read `true` as 1 where a number may stand."""
    if type(value) not in (str, int, float, bool):
        raise ValueError("must be a string, a number or a boolean")
    if type(value) is float and not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _check_number(value: Any) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[Any, BeforeValidator(_check_number)]
Value = Annotated[Any, BeforeValidator(_check_scalar)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class InputConstraint(_Settings):
    """What one input may hold. Every field that is given must hold. Strings in `allow` and `deny` may use the globs * and ?."""

    min: Number | None = None
    max: Number | None = None
    multiple_of: Number | None = None
    allow: tuple[Value, ...] | None = None
    deny: tuple[Value, ...] | None = None
    max_length: Annotated[int, Field(strict=True, ge=0)] | None = None
    const: Value | None = None

    @model_validator(mode="after")
    def _has_meaning(self) -> InputConstraint:
        given = self.model_fields_set
        if not given:
            raise ValueError("an empty constraint constrains nothing: give min, max, allow, deny, … or remove it")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}: no value would pass")
        if self.multiple_of is not None and self.multiple_of <= 0:
            raise ValueError("multiple_of must be greater than 0")
        if self.allow is not None and not self.allow:
            raise ValueError("an empty allow permits no value: deny the class instead")
        if self.const is not None and len(given) > 1:
            raise ValueError("const stands alone: it permits one value only")
        is_numeric = not {"min", "max", "multiple_of"}.isdisjoint(given)
        if is_numeric and self.max_length is not None:
            raise ValueError("max_length is for text, min, max and multiple_of are for numbers")
        if is_numeric and any(isinstance(value, str | bool) for value in (self.allow or ()) + (self.deny or ())):
            raise ValueError("min, max and multiple_of are for numbers, allow and deny list something else here")
        return self


class Budget(_Settings):
    """A bound on a product of inputs of one node, as in `{ of = "width*height*batch_size?", max = 4194304 }`.

    It binds every class that has all factors; a factor written with `?` counts as 1 where a class does not have it.
    """

    of: str
    max: Number

    @field_validator("of")
    @classmethod
    def _is_product(cls, text: str) -> str:
        factors = [factor.strip() for factor in text.split("*")]
        if not all(_FACTOR.fullmatch(factor) for factor in factors):
            raise ValueError(f'{text!r} is not a product of inputs: write "width*height" or "width*height*batch_size?"')
        if all(factor.endswith("?") for factor in factors):
            raise ValueError(f"{text!r} has only optional factors, so no class would be bound by it")
        names = [factor.rstrip("?") for factor in factors]
        if len(set(names)) != len(names):
            raise ValueError(f"{text!r} names an input twice")
        return "*".join(factors)

    @field_validator("max")
    @classmethod
    def _is_positive(cls, value: int | float) -> int | float:
        if value <= 0:
            raise ValueError("must be greater than 0")
        return value

    @property
    def factors(self) -> tuple[tuple[str, bool], ...]:
        """Names with whether each is needed for the budget to bind a class."""
        return tuple((factor.rstrip("?"), not factor.endswith("?")) for factor in self.of.split("*"))


class PinnedFile(_Settings):
    """A workflow in the API format that may run, and its inputs (`node.input`) that a client may change."""

    file: Annotated[str, Field(min_length=1)]
    free: tuple[str, ...] = ()

    @field_validator("free")
    @classmethod
    def _names_inputs(cls, free: tuple[str, ...]) -> tuple[str, ...]:
        for name in free:
            node, dot, input_name = name.partition(".")
            if not (node and dot and input_name):
                raise ValueError(f'{name!r} is not an input of a node: write "6.text"')
        return free


class PolicySettings(_Settings):
    """`[policies.<name>]`. Nothing listed means nothing allowed."""

    extend: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_nodes: Annotated[int, Field(strict=True, ge=1, le=HARD_MAX_NODES)] = DEFAULT_MAX_NODES
    max_depth: Annotated[int, Field(strict=True, ge=1, le=HARD_MAX_DEPTH)] = DEFAULT_MAX_DEPTH
    max_prompt_bytes: Annotated[Size, Field(gt=0)] | None = None
    inputs: dict[str, InputConstraint] = Field(default_factory=dict)
    budgets: dict[str, Budget] = Field(default_factory=dict)
    workflows: tuple[PinnedFile, ...] = ()
    undeclared: Literal["keep", "refuse"] = "keep"

    @field_validator("inputs")
    @classmethod
    def _name_class_and_input(cls, inputs: dict[str, InputConstraint]) -> dict[str, InputConstraint]:
        for name in inputs:
            class_name, dot, input_name = name.rpartition(".")
            if not (class_name and dot and input_name):
                raise ValueError(f'{name!r} names no input: write "KSampler.steps" or "*.steps"')
        return inputs

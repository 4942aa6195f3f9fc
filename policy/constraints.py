"""Constraints on inputs and budgets over their products, compiled once and checked on values that are already known to be literals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policy.name_patterns import NamePatterns, compile_patterns, is_glob
from policy.settings import Budget, InputConstraint
from policy.workflow import Fault, NodeReason, shorten

MAX_LISTED: Final = 10
_TOLERANCE = 1e-9

_TYPE_WORDS = {"INT": "a whole number", "FLOAT": "a number", "STRING": "text", "BOOLEAN": "true or false"}


@dataclass(frozen=True, slots=True)
class Values:
    """A compiled `allow` or `deny` of an input. Text, numbers and booleans never equal one another: `true` is not 1."""

    texts: NamePatterns
    numbers: frozenset[int | float]
    booleans: frozenset[bool]
    words: str

    def has(self, value: str | int | float | bool) -> bool:
        if isinstance(value, str):
            return self.texts.has(value)
        if isinstance(value, bool):
            return value in self.booleans
        return value in self.numbers

    def has_kind_of(self, value: object) -> bool:
        """Whether some listed value could equal one of this kind."""
        if isinstance(value, str):
            return bool(self.texts.exact)
        if isinstance(value, bool):
            return bool(self.booleans)
        return bool(self.numbers)


def compile_values(values: Iterable[Any]) -> Values:
    listed = tuple(values)
    texts = [value for value in listed if isinstance(value, str)]
    return Values(
        texts=compile_patterns(texts) if "" not in texts else _with_empty(texts),
        numbers=frozenset(value for value in listed if type(value) in (int, float)),
        booleans=frozenset(value for value in listed if type(value) is bool),
        words=_list_words(listed),
    )


def _with_empty(texts: list[str]) -> NamePatterns:
    """An empty text is a value like others, other than an empty name."""
    names = compile_patterns(text for text in texts if text)
    return NamePatterns(names.exact | {""}, names.pattern)


def _list_words(listed: tuple[Any, ...]) -> str:
    words = ", ".join(shorten(value) for value in listed[:MAX_LISTED])
    return words if len(listed) <= MAX_LISTED else f"{words} and {len(listed) - MAX_LISTED} more"


@dataclass(frozen=True, slots=True)
class Constraint:
    """One line of `[policies.<name>.inputs]`. key: as it stands there."""

    key: str
    settings: InputConstraint
    allow: Values | None
    deny: Values | None

    def find_fault(self, value: Any, input_type: str) -> Fault | None:
        """What is wrong with a literal in an input of ComfyUI's `input_type`, None when it is accepted."""
        return check_type(value, input_type) or self._check_number(value) or self._check_text(value)

    def _check_number(self, value: Any) -> Fault | None:
        settings = self.settings
        if settings.min is None and settings.max is None and settings.multiple_of is None:
            return None
        if isinstance(value, str | bool):
            return Fault(NodeReason.VALUE_OF_OTHER_TYPE, value, "a number")
        if settings.min is not None and value < settings.min:
            return Fault(NodeReason.VALUE_TOO_SMALL, value, f"at least {settings.min}")
        if settings.max is not None and value > settings.max:
            return Fault(NodeReason.VALUE_TOO_LARGE, value, f"at most {settings.max}")
        if settings.multiple_of is not None and not _is_multiple(value, settings.multiple_of):
            return Fault(NodeReason.VALUE_NOT_A_MULTIPLE, value, f"multiples of {settings.multiple_of}")
        return None

    def _check_text(self, value: Any) -> Fault | None:
        limit = self.settings.max_length
        if limit is not None:
            if not isinstance(value, str):
                return Fault(NodeReason.VALUE_OF_OTHER_TYPE, value, "text")
            if len(value) > limit:
                return Fault(NodeReason.VALUE_TOO_LONG, f"{len(value)} characters", f"at most {limit} characters")
        if self.allow is not None and not self.allow.has(value):
            return Fault(NodeReason.VALUE_NOT_ALLOWED, value, self.allow.words)
        if self.deny is not None:
            # SECURITY: a denied "5" could be written 5, and ComfyUI turns it into text (test_constraints.py::test_other_kinds_do_not_evade_deny).
            if not self.deny.has_kind_of(value):
                return Fault(NodeReason.VALUE_OF_OTHER_TYPE, value, "a value of the kind that the policy lists")
            if self.deny.has(value):
                return Fault(NodeReason.VALUE_DENIED, value, f"anything but {self.deny.words}")
        return None


def compile_constraint(key: str, settings: InputConstraint) -> Constraint:
    allow = None if settings.allow is None else compile_values(settings.allow)
    if settings.const is not None:
        allow = _exactly(settings.const)
    return Constraint(key, settings, allow, None if settings.deny is None else compile_values(settings.deny))


def _exactly(value: Any) -> Values:
    if isinstance(value, str):  # a constant is no glob
        return Values(NamePatterns(frozenset({value})), frozenset(), frozenset(), shorten(value))
    return compile_values((value,))


def check_type(value: Any, input_type: str) -> Fault | None:
    """ComfyUI converts literals (execution.py, validate_inputs): int(0.9) is 0, bool("false") is true. What is constrained is not converted."""
    if input_type == "INT":
        is_right = type(value) is int or (type(value) is float and value.is_integer())
    elif input_type == "FLOAT":
        is_right = type(value) is int or type(value) is float
    elif input_type == "STRING":
        is_right = type(value) is str
    elif input_type == "BOOLEAN":
        is_right = type(value) is bool
    else:
        is_right = type(value) in (str, int, float, bool)
    if is_right:
        return None
    return Fault(NodeReason.VALUE_OF_OTHER_TYPE, value, _TYPE_WORDS.get(input_type, "text, a number, true or false"))


def _is_multiple(value: int | float, step: int | float) -> bool:
    if type(value) is int and type(step) is int:
        return value % step == 0
    return abs(math.remainder(value, step)) <= _TOLERANCE * max(1.0, abs(value))


@dataclass(frozen=True, slots=True)
class Constraints:
    """All lines of one policy: by exact `Class.input`, and globs over it, as `*.steps`."""

    exact: Mapping[str, Constraint]
    globs: tuple[tuple[NamePatterns, Constraint], ...]

    def __bool__(self) -> bool:
        return bool(self.exact or self.globs)

    def of(self, class_type: str, input_name: str) -> tuple[Constraint, ...]:
        """Every line that binds this input; all of them hold."""
        name = f"{class_type}.{input_name}"
        first = self.exact.get(name)
        rest = tuple(constraint for names, constraint in self.globs if constraint is not first and names.has(name))
        return rest if first is None else (first, *rest)


def compile_constraints(settings: Mapping[str, InputConstraint]) -> Constraints:
    exact = {key: compile_constraint(key, line) for key, line in settings.items()}
    globs = tuple((compile_patterns([key]), line) for key, line in exact.items() if is_glob(key))
    return Constraints(exact, globs)


@dataclass(frozen=True, slots=True)
class BoundBudget:
    """A budget as it binds one class. names: the inputs that are multiplied."""

    key: str
    budget: Budget
    names: tuple[str, ...]

    def find_fault(self, values: Iterable[int | float]) -> Fault | None:
        product: int | float = 1
        for name, value in zip(self.names, values, strict=True):
            # 0 and -1 let ComfyUI's nodes choose a size themselves, so the product would be unknown.
            if value <= 0:
                return Fault(NodeReason.VALUE_TOO_SMALL, value, f"{name} greater than 0 (budget {self.key})")
            product *= value
        if product > self.budget.max:
            found = f"{'*'.join(self.names)} = {product}"
            return Fault(NodeReason.BUDGET_EXCEEDED, found, f"at most {self.budget.max} (budget {self.key})")
        return None


def bind_budget(key: str, budget: Budget, inputs: Iterable[str]) -> list[BoundBudget]:
    """The budget for each group of inputs that has all its needed factors.

    Inputs of dynamic choices have a prefix ("resize_type.width"): they form a group, and lend factors from the node's own inputs.
    """
    names = set(inputs)
    prefixes = sorted({name.rpartition(".")[0] for name in names})
    bound = []
    for prefix in prefixes:
        factors = []
        for factor, is_needed in budget.factors:
            own = f"{prefix}.{factor}" if prefix else factor
            found = own if own in names else factor if factor in names else None
            if found is None and is_needed:
                break
            if found is not None:
                factors.append(found)
        else:
            bound.append(BoundBudget(key, budget, tuple(factors)))
    return list({item.names: item for item in bound}.values())

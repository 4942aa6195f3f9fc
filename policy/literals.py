"""Literals in the inputs of a node: ComfyUI's `{"__value__": …}` wrappers, nested objects, and what is meant for a link."""

from __future__ import annotations

from typing import Any, Final

import orjson

from policy.document import is_deeper
from policy.workflow import Fault, NodeReason

MAX_LITERAL_DEPTH: Final = 16
WRAPPER: Final = "__value__"
_WRAPPER_KEYS = frozenset({"__value__", "__type__"})


def unwrap(wrapper: dict[str, Any], is_list_taken: bool) -> Any:
    """Scalars come out of ComfyUI's `{"__value__": …}`, so that they are judged like others; lists stay in it where they are taken.

    What is neither keeps its wrapper, and is refused for it.
    """
    value = wrapper[WRAPPER]
    if not wrapper.keys() <= _WRAPPER_KEYS or type(value) is dict:
        return wrapper
    if type(value) is list:
        return {WRAPPER: value} if is_list_taken else wrapper
    return value


def find_literal_fault(value: dict[str, Any] | list[Any], is_list_taken: bool) -> Fault | None:
    """What is wrong with an object or a list as a literal. ComfyUI itself says when an input takes no such value."""
    if type(value) is dict and WRAPPER in value:
        return _find_list_fault(value[WRAPPER]) if is_list_taken and len(value) == 1 else _refuse_wrapper(value)
    return _find_nested_fault(value)


def find_undeclared_fault(value: dict[str, Any] | list[Any]) -> Fault | None:
    """The same for an input that no class declares: ComfyUI takes nothing out of its wrapper there."""
    items = value.values() if type(value) is dict else value
    if WRAPPER not in value and not any(type(item) is dict or type(item) is list for item in items):
        return None
    if type(value) is dict and WRAPPER in value:
        inner = value[WRAPPER]
        return _find_list_fault(inner) if type(inner) is list else _find_nested_fault(inner)
    return _find_nested_fault(value)


def _find_list_fault(value: Any) -> Fault | None:
    if type(value) is not list:
        return _refuse_wrapper(value)
    # SECURITY: unwrapped by ComfyUI, a list of a text and a number is a link, to wherever it says (test_judge.py::test_wrappers_hide_nothing).
    if len(value) == 2 and type(value[0]) is str and type(value[1]) in (int, float, bool):
        return Fault(NodeReason.LITERAL_MALFORMED, value, "a list that does not look like a link")
    return _find_nested_fault(value)


def _find_nested_fault(value: Any) -> Fault | None:
    if is_deeper(value, MAX_LITERAL_DEPTH):
        return Fault(NodeReason.LITERAL_MALFORMED, value, f"at most {MAX_LITERAL_DEPTH} levels")
    if b'"__value__":' in orjson.dumps(value):
        return _refuse_wrapper(value)
    return None


def _refuse_wrapper(value: Any) -> Fault:
    return Fault(NodeReason.LITERAL_MALFORMED, value, "the plain value, without __value__ around it")

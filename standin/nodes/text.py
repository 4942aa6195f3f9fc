"""Nodes for text, numbers and switches."""

from __future__ import annotations

import json
from typing import Any

from standin.nodes.runner import Context, Outcome, Runner


class Primitive(Runner):
    def run(self, context: Context, value: Any) -> Outcome:
        return Outcome((value,))


class StringConcatenate(Runner):
    def run(self, context: Context, string_a: str, string_b: str, delimiter: str) -> Outcome:
        return Outcome((delimiter.join((string_a, string_b)),))


class ComfySwitchNode(Runner):
    has_lazy_inputs = True

    def wanted_inputs(self, **values: Any) -> list[str]:
        chosen = "on_true" if values["switch"] else "on_false"
        return [chosen] if values.get(chosen) is None else []

    def run(self, context: Context, switch: bool, on_false: Any = None, on_true: Any = None) -> Outcome:
        return Outcome((on_true if switch else on_false,))


class PreviewAny(Runner):
    def run(self, context: Context, source: Any = None) -> Outcome:
        if isinstance(source, (str, int, float)) or source is None:
            text = str(source)
        else:
            try:
                text = json.dumps(source, indent=4, ensure_ascii=False)
            except (TypeError, ValueError):
                text = str(source)
        return Outcome((text,), {"text": [text]})


RUNNERS: dict[str, type[Runner]] = {
    "PrimitiveString": Primitive,
    "PrimitiveStringMultiline": Primitive,
    "PrimitiveInt": Primitive,
    "PrimitiveFloat": Primitive,
    "PrimitiveBoolean": Primitive,
    "StringConcatenate": StringConcatenate,
    "ComfySwitchNode": ComfySwitchNode,
    "PreviewAny": PreviewAny,
}

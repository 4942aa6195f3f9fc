"""The fields of a function's form, as HTML. What a field says of its bounds is what the gate judges by (policy/functions/arguments.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from html import escape
from typing import Final

from policy.functions.arguments import MAX_SEED, written
from policy.functions.settings import FILES, MAX_TEXT, ParameterSettings

LONG_TEXT: Final = 120
"""Texts that may have more characters are written on several lines."""
_ACCEPTED: Final[Mapping[str, str]] = {"image": "image/*", "mask": "image/*", "audio": "audio/*", "video": "video/*"}
Attributes = Mapping[str, str | None]
"""None: left out. "": without a value."""


def field(name: str, parameter: ParameterSettings, *, takes_addresses: bool = False) -> str:
    """One parameter's: label, words, control, and a place for what is wrong with it. takes_addresses: in the place of a file."""
    control_id = f"field-{name}"
    shown = {
        "id": control_id,
        "name": name,
        "aria-describedby": f"{control_id}-words {control_id}-wrong",
        "required": "" if _is_needed(parameter) else None,
    }
    label = f'<label for="{control_id}">{escape(parameter.title or name)}{_mark(parameter)}</label>'
    words = f'<p class="quiet small words" id="{control_id}-words">{escape(_words(parameter))}</p>'
    wrong = f'<p class="wrong small" id="{control_id}-wrong"></p>'
    control = _control(parameter, shown)
    if takes_addresses and parameter.type in FILES:
        control += _address(control_id)
    parts = [control, label, words] if parameter.type == "boolean" else [label, words, control]
    about = _attributes(
        {"class": "field", "data-name": name, "data-type": parameter.type, "data-fills": _fills(parameter)}
    )
    return f"<div{about}>\n" + "\n".join([*parts, wrong]) + "\n</div>"


def _is_needed(parameter: ParameterSettings) -> bool:
    """Whether the form is not sent without it. A box that is not ticked says no."""
    if parameter.type in FILES:
        return not parameter.optional
    return parameter.default is None and parameter.type not in ("seed", "boolean")


def _mark(parameter: ParameterSettings) -> str:
    return ' <span class="quiet">(needed)</span>' if _is_needed(parameter) else ""


def _fills(parameter: ParameterSettings) -> str:
    """By which what ComfyUI or a policy says of a node's input is told beside the field."""
    return " ".join(parameter.fills)


def _words(parameter: ParameterSettings) -> str:
    return " ".join(filter(None, (_sentence(parameter.description), _bounds(parameter))))


def _sentence(text: str) -> str:
    return text if not text or text.rstrip().endswith((".", "!", "?", ":")) else f"{text}."


def _bounds(parameter: ParameterSettings) -> str:
    low, high, step = parameter.min, parameter.max, parameter.multiple_of
    match parameter.type:
        case "seed":
            return "Empty: drawn at random."
        case "integer" | "number":
            edges = [
                f"from {_plain(low)}" if low is not None else "",
                f"up to {_plain(high)}" if high is not None else "",
            ]
            words = " ".join(filter(None, edges))
            words += f"{', ' if words else ''}a multiple of {_plain(step)}" if step is not None else ""
            return _sentence(words[:1].upper() + words[1:])
        case "text":
            return "" if parameter.max_length is None else f"At most {parameter.max_length:,} characters."
        case "image" | "mask" | "audio" | "video":
            return "Without one, that of the workflow." if parameter.optional else ""
    return ""


def _plain(number: float) -> str:
    return f"{int(number):,}" if number == int(number) and abs(number) < MAX_SEED else f"{number:,}"


def _control(parameter: ParameterSettings, shown: Attributes) -> str:
    match parameter.type:
        case "text":
            return _text(parameter, shown)
        case "boolean":
            return f"<input{_attributes({**shown, 'type': 'checkbox', 'checked': '' if parameter.default else None})}>"
        case "choice":
            return _choice(parameter, shown)
        case "integer" | "number":
            return f"<input{_attributes({**shown, **_number(parameter)})}>"
        case "seed":
            # No field for numbers: browsers count with floats, which have no whole number beyond 2**53.
            size = str(len(str(MAX_SEED)))
            digits = {"type": "text", "inputmode": "numeric", "pattern": "[0-9]*", "maxlength": size}
            text = {"placeholder": "random", "autocomplete": "off", "value": _default(parameter)}
            return f"<input{_attributes({**shown, **digits, **text})}>"
    return _file(parameter, shown)


def _text(parameter: ParameterSettings, shown: Attributes) -> str:
    limit = parameter.max_length or MAX_TEXT
    more = {"maxlength": str(limit), "autocomplete": "off"}
    if limit <= LONG_TEXT:
        return f"<input{_attributes({**shown, **more, 'type': 'text', 'value': _default(parameter)})}>"
    # A first line break would be taken for none (WHATWG HTML, 13.1.2.5), so there is always one.
    return f"<textarea{_attributes({**shown, **more, 'rows': '3'})}>\n{escape(_default(parameter) or '')}</textarea>"


def _choice(parameter: ParameterSettings, shown: Attributes) -> str:
    chosen = _default(parameter)
    rows = [] if chosen is not None else ['<option value="" selected disabled>Choose…</option>']
    for choice in map(written, parameter.choices):
        more = {"value": choice, "selected": "" if choice == chosen else None}
        rows.append(f"<option{_attributes(more)}>{escape(choice)}</option>")
    return f"<select{_attributes(shown)}>{''.join(rows)}</select>"


def _number(parameter: ParameterSettings) -> Attributes:
    """Of an input for numbers, which counts its steps from `min` (WHATWG HTML, 4.10.5.3.8): so that is one of the multiples."""
    is_whole, of = parameter.type == "integer", parameter.multiple_of
    low = None if parameter.min is None else Decimal(str(parameter.min))
    if low is not None and is_whole:
        low = Decimal(math.ceil(low))
    if low is not None and of is not None:
        step = Decimal(str(of))
        low = (low / step).to_integral_value("ROUND_CEILING") * step
    return {
        "type": "number",
        "value": _default(parameter),
        "min": None if low is None else f"{low:f}",
        "max": None if parameter.max is None else f"{Decimal(str(parameter.max)):f}",
        "step": "1" if is_whole and of is None else "any" if of is None else f"{Decimal(str(of)):f}",
        "inputmode": "numeric" if is_whole and (low is not None and low >= 0) else None,
        "autocomplete": "off",
    }


def _file(parameter: ParameterSettings, shown: Attributes) -> str:
    more = {"type": "file", "accept": _ACCEPTED[parameter.type]}
    return (
        f'<div class="drop"><input{_attributes({**shown, **more})}>'
        '<span class="quiet small">or drop one here</span><div class="chosen"></div></div>'
    )


def _address(control_id: str) -> str:
    """Of a file that stands elsewhere, which the gate fetches."""
    more = {
        "id": f"{control_id}-address",
        "type": "url",
        "pattern": "https://.*",
        "maxlength": "2000",
        "placeholder": "https://",
        "autocomplete": "off",
        "aria-describedby": f"{control_id}-wrong",
    }
    label = f'<label class="quiet small" for="{control_id}-address">or its https address</label>'
    return f'<div class="address">{label}<input{_attributes(more)}></div>'


def _default(parameter: ParameterSettings) -> str | None:
    return None if parameter.default is None else written(parameter.default)


def _attributes(given: Attributes) -> str:
    return "".join(
        f" {name}" if text == "" and name in _FLAGS else f' {name}="{escape(text)}"'
        for name, text in given.items()
        if text is not None
    )


_FLAGS: Final = frozenset({"required", "checked", "selected"})

"""Whether a ComfyUI has what a job needs."""

from __future__ import annotations

from collections.abc import Container

from policy.catalogue import Catalogue
from policy.merging import shape_of
from policy.needs import Needs


def fits(needs: Needs, catalogue: Catalogue, labels: Container[str]) -> str:
    """ "" when it fits, else what is missing, in words. catalogue, labels: the ComfyUI's own."""
    for label in needs.labels:
        if label not in labels:
            return f"label {label}"
    classes = catalogue.classes
    for name in needs.classes:
        if name not in classes.places:
            return f"class {name}"
    for name, input_name, choice in needs.choices:
        if choice not in classes.choices_of(name).get(input_name, ()):
            what = "the model" if choice in needs.models else "the choice"
            return f"{what} {choice} of {name}.{input_name}"
    for name, given, shape in needs.shapes:
        if shape_of(classes[name], given) != shape:
            return f"class {name} as the first one has it"
    return ""

"""Whether a ComfyUI has what a job needs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, NamedTuple

from policy.catalogue import Catalogue
from policy.merging import shape_of
from policy.needs import Needs
from policy.violation import Reason, Violation

NOBODY: Final = "No ComfyUI runs this tenant's jobs: the operator says which do (tenants of [[comfyui]])."
_NOT_TOGETHER: Final = (
    "No ComfyUI has all that this workflow needs. Make two workflows of it, or ask the operator for what is missing."
)
_MAX_DETAILS: Final = 1000


class Candidate(NamedTuple):
    """One of several ComfyUIs that a tenant may use. catalogue: what it said last, None where it has said nothing so far."""

    name: str
    catalogue: Catalogue | None
    labels: tuple[str, ...] = ()
    is_first: bool = False

    def lacks(self, needs: Needs) -> str:
        """In words; "" where it has all, as far as is known."""
        if needs.first_only and not self.is_first:
            class_type, name = needs.first_only[0]
            return f"what {class_type}.{name} reads or writes"
        if not all(label in self.labels for label in needs.labels):
            return "what this function asks for"  # labels are the operator's words
        return "" if self.catalogue is None else fits(needs, self.catalogue, self.labels)


def check_fits(needs: Needs, candidates: Iterable[Candidate]) -> None:
    """Raises Violation(nowhere-to-run) for a job that would wait for ever. One that is away is counted on: it comes back."""
    lacking = []
    for candidate in candidates:
        if not (lacks := candidate.lacks(needs)):
            return
        lacking.append(f"{candidate.name} has not {lacks}")
    raise Violation(Reason.NOWHERE_TO_RUN, _NOT_TOGETHER, "; ".join(lacking)[:_MAX_DETAILS])


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

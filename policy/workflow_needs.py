"""What a judged workflow needs of the ComfyUI that runs it. Trusts ComfyUI's description of its classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from policy.call import UpstreamPath
from policy.catalogue import list_choices
from policy.class_plan import InputPlan
from policy.file_uses import FileUse
from policy.fitting import check_fits
from policy.literals import WRAPPER
from policy.merging import shape_of
from policy.namespace import MAX_PATH_BYTES, Folder, split_annotation
from policy.needs import Needs
from policy.node_plan import NodePlan
from policy.patience import ENDLESS, Patience
from policy.rule_context import RuleContext
from policy.salt import SALT, is_core
from policy.surely_valid import needed_by
from policy.violation import Reason, Violation
from policy.workflow_files import name_to_upstream, use_of_value

MODEL_ENDINGS: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
_READ: Final = frozenset({FileUse.READ, FileUse.LISTED, FileUse.OBJECT_OF_PATHS, None})
_FIRST_ONLY: Final = frozenset({FileUse.FOLDER, FileUse.ID})
MAX_FILES: Final = 256
"""Of one job: a ComfyUI is asked for each of them before the job is sent there. One that reads more stays with the first, which has the uploads."""
_PER_SHAPE: Final = 50
MAX_SHAPES: Final = 32
"""SECURITY: which inputs a node has, its client decides, and each ComfyUI is looked at for each (test_workflow_needs.py::test_very_many_shapes_are_few)."""
MAX_BYTES: Final = 64 * 1024
"""Of what is recorded of a job: of many that wait it is read whenever one is chosen (test_workflow_needs.py::test_what_is_recorded_is_never_large)."""
_LONGEST: Final = MAX_PATH_BYTES + len(" [output]")


def find_needs(
    nodes: Mapping[str, Mapping[str, Any]],
    plans: Mapping[str, NodePlan],
    outputs: Iterable[str],
    context: RuleContext,
    patience: Patience = ENDLESS,
) -> Needs:
    """nodes, plans: of a JudgedPrompt, in the names that ComfyUI gets. outputs: those that were asked for: of nodes that none of them needs ComfyUI
    knows the class, and looks at nothing else. Raises TooMuch, Violation(policy-violation, nowhere-to-run).
    """
    found = _Finding(context, patience)
    needed, catalogue = needed_by(outputs, nodes), context.catalogue
    for node_id, plan in plans.items():
        found.classes[plan.class_type] = None
        if node_id in needed:
            inputs = nodes[node_id]["inputs"]
            # SECURITY: one that has told nothing so far may have another version of any class, by which it reads other files.
            if not catalogue.is_whole or plan.class_type in catalogue.differing:
                found.add_shape(inputs, plan)
            found.add_choices(inputs, plan)
            if plan.files or plan.class_type in context.id_inputs:
                found.add_files(node_id, inputs, plan)
    needs = found.needs()
    if context.comfyuis is not None:
        patience.spend(len(needs.choices) + len(needs.classes))
        check_fits(needs, context.comfyuis)
    return needs


def find_models(nodes: Mapping[str, Mapping[str, Any]], plans: Mapping[str, NodePlan]) -> tuple[str, ...]:
    """As `Needs.models`, of all these nodes."""
    return _models_among(
        value
        for node_id, plan in plans.items()
        for name, texts in _listed(plan.inputs).items()
        for value in _texts_of(nodes[node_id]["inputs"].get(name))
        if value in texts
    )


class _Finding:
    """Collects, each once."""

    def __init__(self, context: RuleContext, patience: Patience) -> None:
        self._context = context
        self._patience = patience
        self.classes: dict[str, None] = {}
        self._choices: dict[tuple[str, str, str], None] = {}
        self._files: dict[tuple[Folder, UpstreamPath], None] = {}
        self._prefixes: list[tuple[str, str]] = []
        self._folders: list[tuple[str, str]] = []
        self._shapes: dict[tuple[str, tuple[str, ...] | None], str] = {}
        self._first_only: dict[tuple[str, str], None] = {}

    def add_shape(self, inputs: Mapping[str, Any], plan: NodePlan) -> None:
        names: tuple[str, ...] | None = tuple(sorted(inputs.keys() - {SALT}))
        if len(self._shapes) >= MAX_SHAPES:
            names = None  # of the whole class
        if (plan.class_type, names) not in self._shapes:
            self._patience.spend(_PER_SHAPE + len(inputs))
            self._shapes[plan.class_type, names] = shape_of(plan.of_class.node_class, names)

    def add_choices(self, inputs: Mapping[str, Any], plan: NodePlan) -> None:
        listed = _listed(plan.inputs)
        self._patience.spend(1 + len(listed))
        for name, texts in listed.items():
            for value in _texts_of(inputs.get(name)):
                if value in texts:
                    self._choices[plan.class_type, name, value] = None

    def add_files(self, node_id: str, inputs: Mapping[str, Any], plan: NodePlan) -> None:
        ids = self._context.id_inputs.get(plan.class_type, frozenset())
        for name in inputs if ids else plan.files:
            value = inputs[name]
            use = FileUse.ID if name in ids else use_of_value(name, value, plan)
            if use in _FIRST_ONLY or (use is FileUse.FOLDER_TO_WRITE and is_core(plan.of_class.node_class)):
                # What a data set is written into is read again, as a folder.
                self._first_only[plan.class_type, name] = None
            if use is FileUse.PREFIX:
                self._prefixes.append((node_id, name))
            elif use is FileUse.FOLDER_TO_WRITE:
                self._folders.append((node_id, name))
            elif use in _READ:
                self._patience.spend_on(value)
                self._add_read(value)
                if len(self._files) > MAX_FILES:
                    self._first_only[plan.class_type, name] = None

    def _add_read(self, value: Any) -> None:
        for text in _each_text(value):
            if (file := _file_of(text, self._context)) is not None:
                self._files[file] = None

    def needs(self) -> Needs:
        """SECURITY: an input may be called anything that ends in `.filename_prefix`, and named with its node each time, so that a workflow of two megabytes
        needs twelve. Raises Violation."""
        needs = self._all_needs()
        if len(needs.to_bytes()) <= MAX_BYTES:
            return needs
        first_only = needs.first_only[:1] or tuple((name, "*") for name in needs.classes[:1])
        fewer = Needs(labels=needs.labels, prefixes=needs.prefixes, folders=needs.folders, first_only=first_only)
        if len(fewer.to_bytes()) > MAX_BYTES:
            raise Violation(Reason.POLICY_VIOLATION, "A workflow saves files under fewer names than this one.", "files")
        return fewer

    def _all_needs(self) -> Needs:
        return Needs(
            classes=tuple(self.classes),
            choices=tuple(self._choices),
            models=_models_among(value for _, _, value in self._choices),
            labels=self._context.labels,
            # SECURITY: a workflow may name any number of files that are nowhere
            # (test_workflow_needs.py::test_one_that_reads_very_many_files_stays_with_the_first).
            files=tuple(self._files) if len(self._files) <= MAX_FILES else (),
            prefixes=tuple(self._prefixes),
            folders=tuple(self._folders),
            first_only=tuple(self._first_only),
            shapes=tuple((name, given, shape) for (name, given), shape in self._shapes.items()),
        )


def _models_among(choices: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in choices if value.lower().endswith(MODEL_ENDINGS)}))


def _listed(plan: InputPlan) -> Mapping[str, frozenset[str]]:
    """The texts among the choices of inputs, by name: models, samplers and the like. Files of tenants are none."""
    if not plan.listed:
        for name, spec in plan.specs.items():
            if name not in plan.uses and (texts := frozenset(list_choices(spec))):
                plan.listed[name] = texts
    return plan.listed


def _texts_of(value: Any) -> Iterable[str]:
    """What is chosen: one, or several of an input that takes lists."""
    if type(value) is str:
        return (value,)
    chosen = value.get(WRAPPER) if type(value) is dict else None
    return [item for item in chosen if type(item) is str] if type(chosen) is list else ()


def _each_text(value: Any) -> Iterator[str]:
    """Every text in a literal."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if type(part) is str:
            yield part
        elif type(part) is dict:
            waiting += [*part, *part.values()]
        elif type(part) is list:
            waiting += part


def _file_of(text: str, context: RuleContext) -> tuple[Folder, UpstreamPath] | None:
    """The file that ComfyUI reads by this name.

    SECURITY: the gate itself hands it on, so it is none unless its tenant may name it (test_workflow_needs.py::test_no_name_is_one_of_anothers_files).
    """
    if len(text) > _LONGEST:
        return None
    try:
        if name_to_upstream(text, context) != text:
            return None
        bare, folder = split_annotation(text)
    except Violation:
        return None
    return folder or Folder.INPUT, UpstreamPath(bare)

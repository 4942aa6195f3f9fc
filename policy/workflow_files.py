"""How a workflow's files are written into the tenant's namespace. Trusts ComfyUI's description of its classes.

What names a file must be a literal: a linked value is not known before the job runs (comfyui-api: D.1, D.2, C.5, C.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.call import UpstreamPath
from policy.catalogue import InputSpec, NodeClass
from policy.class_plan import takes_any_literal
from policy.file_uses import FileUse, use_of_text
from policy.namespace import Folder, check_file_name, is_path, is_shared, read_path, split_annotation, split_path
from policy.node_plan import NodePlan
from policy.own_ids import id_to_upstream
from policy.path_texts import check_text, rewrite_texts
from policy.patience import ENDLESS, Patience
from policy.rule_context import RuleContext
from policy.salt import SALT, is_core, salt_nodes
from policy.texts import Texts, fill_dates
from policy.violation import Reason, Violation
from policy.workflow import is_link

Original = tuple[str, str, Any]
"""Node, input and what its client wrote there."""

MAX_TEMP_FILES: Final = 64
"""Of one workflow: ComfyUI is asked for each of them."""
IN_TEMP: Final = f" [{Folder.TEMP}]".encode()
"""What the names of files in ComfyUI's temp folder end with."""
_IN_TEMP: Final = IN_TEMP.decode()
_NO_FILE: Final = frozenset({"none", "None"})


def rewrite_nodes(
    nodes: dict[str, dict[str, Any]],
    plans: Mapping[str, NodePlan],
    context: RuleContext,
    patience: Patience = ENDLESS,
) -> list[Original]:
    """Makes of judged nodes what ComfyUI gets: every file in the tenant's namespace, every node that needs it salted. Returns what it has replaced.

    plans: of all nodes. Raises TooMuch, Violation(policy-violation) with all offending nodes.
    """
    originals = write_names(nodes, plans, context, patience)
    tenant = context.names.tenant
    unsalted: list[str] = []
    for node_id, plan in plans.items():
        if plan.is_salted:
            nodes[node_id]["inputs"][SALT] = tenant
        elif plan.needs_ancestor:
            unsalted.append(node_id)
    if unsalted:
        apart = {node_id for node_id, _, _ in originals} | {node_id for node_id in plans if plans[node_id].is_salted}
        salt_nodes(nodes, unsalted, apart, lambda node_id: plans[node_id].of_class.node_class, tenant)
    return originals


def write_names(
    nodes: Mapping[str, dict[str, Any]], plans: Mapping[str, NodePlan], context: RuleContext, patience: Patience
) -> list[Original]:
    """The files of these nodes alone, as `rewrite_nodes`. nodes: all of the workflow. plans: of those that are written."""
    node_errors: dict[str, Any] = {}
    id_inputs = context.id_inputs
    writing = _Writing(nodes, context, patience)
    for node_id, plan in plans.items():
        if plan.files or plan.class_type in id_inputs:
            errors = writing.write(node_id, nodes[node_id]["inputs"], plan)
            if errors:
                node_errors[node_id] = {"errors": errors, "dependent_outputs": [], "class_type": plan.class_type}
    if node_errors:
        raise _refusal_of(node_errors)
    return writing.originals


def find_temp_files(nodes: Mapping[str, Mapping[str, Any]], context: RuleContext) -> tuple[UpstreamPath, ...]:
    """The temp files among everybody's that rewritten nodes may read, each once. Raises Violation(policy-violation) for more than MAX_TEMP_FILES."""
    found: dict[UpstreamPath, None] = {}
    waiting: list[Any] = [node.get("inputs") for node in nodes.values()]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping | list):
            waiting += [*part, *part.values()] if isinstance(part, Mapping) else part
        elif isinstance(part, str) and part.endswith(_IN_TEMP):
            path = UpstreamPath(part.removesuffix(_IN_TEMP))
            if context.jobs.has_temp_file(path):
                found[path] = None
    if len(found) > MAX_TEMP_FILES:
        raise Violation(
            Reason.POLICY_VIOLATION,
            f"A workflow reads at most {MAX_TEMP_FILES} previews: save what it is to load, and load it from the output folder.",
        )
    return tuple(found)


class _Writing:
    """The names of files of one workflow, on their way into the tenant's namespace. originals: what was replaced."""

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]], context: RuleContext, patience: Patience) -> None:
        self._context = context
        self._texts = Texts(nodes, context.catalogue)
        self._patience = patience
        self.originals: list[Original] = []

    def write(self, node_id: str, inputs: dict[str, Any], plan: NodePlan) -> list[dict[str, Any]]:
        """Replaces names in the inputs of a node, and returns what is wrong with them. Raises TooMuch."""
        errors = []
        uses, names = plan.inputs.uses, plan.files
        # Inputs of which the rows of custom nodes say so, declared or not.
        if (ids := self._context.id_inputs.get(plan.class_type)) is not None:
            uses = {**uses, **dict.fromkeys(ids, FileUse.ID)}
            names = tuple(name for name in inputs if name in ids or name in names)
        self._patience.spend(4 * len(names))
        for name in names:
            value = inputs[name]
            try:
                judged = self._judge(name, value, uses.get(name), plan)
            except _FileRefused as refused:
                errors.append(refused.describe(name))
                continue
            if judged is not value and judged != value:
                inputs[name] = judged
                self.originals.append((node_id, name, value))
        return errors

    def _judge(self, name: str, value: Any, use: FileUse | None, plan: NodePlan) -> Any:
        """What ComfyUI gets for a value. Raises TooMuch, _FileRefused."""
        node_class, declared = plan.of_class.node_class, plan.inputs.specs
        if use is None:
            use = use_of_value(name, value, plan)
        if use is not None:
            text = _follow(value, use, self._texts)
            return _rewrite(text, use, node_class.inputs.get(name), self._context)
        self._patience.spend_on(value)
        if name not in declared or _is_untold(node_class, declared[name]):
            return _rewrite_untold(value, self._texts, self._context)
        _check_told(value, self._texts, self._context)
        return value


def _refusal_of(node_errors: Mapping[str, Any]) -> Violation:
    named = ", ".join(f"node {node_id}: {entry['errors'][0]['details']}" for node_id, entry in node_errors.items())
    message = "The workflow names files in a way that is not accepted: see the nodes."
    return Violation(Reason.POLICY_VIOLATION, message, named[:500], node_errors=node_errors)


def use_of_value(name: str, value: Any, plan: NodePlan) -> FileUse | None:
    """What an input of a node names: an undeclared text by the name of its input; a link is refused there as in a declared one."""
    if name in plan.inputs.specs:
        return plan.inputs.uses.get(name)
    if type(value) is str or is_link(value):
        return use_of_text(plan.of_class.node_class, name.rpartition(".")[2])
    return None


def _is_untold(node_class: NodeClass, spec: InputSpec) -> bool:
    """Whether a class from outside declares this input and does not say what it is: ComfyUI hands it any literal."""
    return not is_core(node_class) and takes_any_literal(spec)


def _rewrite_untold(value: Any, texts: Texts, context: RuleContext) -> Any:
    """SECURITY: a text is judged whether it stands here or comes by a link to constants
    (test_texts.py::test_a_text_that_comes_by_a_link_into_an_undeclared_input_is_judged)."""
    text = texts.follow(value) if is_link(value) else None
    given = value if text is None else text
    if is_link(given):
        return value
    try:
        judged = rewrite_texts(given, context.names, lambda name: name_to_upstream(name, context))
    except Violation as violation:
        raise _FileRefused("file-input-refused", violation.message) from None
    return value if judged == given else judged


def _check_told(value: Any, texts: Texts, context: RuleContext) -> None:
    """A text of a class from outside, or one that a link to constants brings it."""
    text = texts.follow(value) if is_link(value) else value
    if type(text) is str:
        try:
            check_text(text, context.names)
        except Violation as violation:
            raise _FileRefused("file-input-refused", violation.message) from None


def _follow(value: Any, use: FileUse, texts: Texts) -> Any:
    """The text that a link to constants brings, so that it can be judged; any other value as it is."""
    if not is_link(value) or use is FileUse.DISPLAY_ONLY:
        return value
    text = texts.follow(value)
    return value if text is None else text


class _FileRefused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def describe(self, input_name: str) -> dict[str, Any]:
        return {
            "type": self.code,
            "message": self.message,
            "details": f"{input_name}: {self.message}",
            "extra_info": {"input_name": input_name},
        }


def _rewrite(value: Any, use: FileUse, spec: InputSpec | None, context: RuleContext) -> Any:
    if isinstance(value, list):
        if use is FileUse.DISPLAY_ONLY:
            return value
        raise _FileRefused(
            "file-input-linked",
            "A file must be named here by a literal, or by a link to constants and their concatenation.",
        )
    if use is FileUse.OBJECT_OF_PATHS and isinstance(value, dict) and "__value__" not in value:
        return {key: _rewrite_bundled(item, context) for key, item in value.items()}
    if not isinstance(value, str):
        raise _FileRefused("file-input-malformed", "A file must be named here by a text.")
    try:
        return _rewrite_text(value, use, spec, context)
    except Violation as violation:
        raise _FileRefused("file-input-refused", violation.message) from None


def _rewrite_bundled(item: Any, context: RuleContext) -> Any:
    """Objects, lists and numbers in a bundle describe cameras and models; every text names a file."""
    if not isinstance(item, str):
        return item
    return _rewrite(item, FileUse.READ, None, context)


def _rewrite_text(value: str, use: FileUse, spec: InputSpec | None, context: RuleContext) -> str:
    names = context.names
    if use is FileUse.ID:
        return id_to_upstream(value, context)
    if use in (FileUse.PREFIX, FileUse.PREFIX_NAME):
        prefix = fill_dates(value, context.now)
        if use is FileUse.PREFIX:
            return names.prefix_to_upstream(prefix, _default_prefix(spec))
        prefix = prefix if names.read(prefix) else _default_prefix(spec)
        check_file_name(prefix)
        return split_path(names.prefix_to_upstream(prefix))[1]
    if use in (FileUse.FOLDER, FileUse.FOLDER_TO_WRITE):
        folder = names.folder_to_upstream(value)
        raw = "/".join(read_path(value))
        is_shared_folder = use is FileUse.FOLDER and is_shared(f"{raw}/", context.shared_inputs)
        return raw if is_shared_folder and is_path(raw) else folder
    choices = (spec.choices if spec else None) or ()
    if value == "" or (value in _NO_FILE and (value in choices or not choices)):
        return value
    rewritten = name_to_upstream(value, context)
    if use is FileUse.LISTED and rewritten not in choices:
        raise Violation(
            Reason.NAME_REFUSED,
            "This node reads only what lies in ComfyUI's own input folder, so tenants can use it with shared inputs only.",
        )
    return rewritten


def _default_prefix(spec: InputSpec | None) -> str:
    """What the class itself says, for a prefix that names nothing."""
    default = spec.options.get("default") if spec else None
    return default if isinstance(default, str) and default else "ComfyUI"


def name_to_upstream(value: str, context: RuleContext) -> str:
    """`name`, `folder/name` or `name [output]`; also as the workflow in a saved picture has it, with the tenant's own root."""
    bare, folder = split_annotation(value)
    path = context.names.readable_to_upstream(
        bare, folder or Folder.INPUT, context.shared_inputs, context.jobs.has_temp_file
    )
    return f"{path} [{folder}]" if folder else path

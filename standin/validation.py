"""POST /prompt's checks and their error shapes (execution.py of ComfyUI 0.33). The graph is changed in place: literals
are cast to their declared type and `{"__value__": x}` becomes x.

What is not connected to an output is not looked at, nor are inputs that a class does not declare.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

from standin.catalogue import CATALOGUE
from standin.folders import Folders
from standin.graph import Graph, is_link
from standin.nodes import RUNNERS
from standin.specs import expand_inputs

MATCH_TYPE = "COMFY_MATCHTYPE_V3"
LONGEST_PRINTED_LIST = 20
CASTS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True)
class Verdict:
    error: dict[str, Any] | None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)


def refusal(kind: str, message: str, details: str, extra_info: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def type_name(error: BaseException) -> str:
    """The exception's class as clients see it: a dotted name, or the bare one for built-ins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def matches(given: Any, wanted: Any) -> bool:
    """Whether an output of type `given` may feed an input of type `wanted`; `*` and match types take anything."""
    if given == wanted or "*" in (given, wanted) or MATCH_TYPE in (given, wanted):
        return True
    if not isinstance(given, str) or not isinstance(wanted, str):
        return False
    left, right = ({part.strip() for part in kind.split(",")} for kind in (given, wanted))
    return "*" in left | right or bool(left & right)


def validate_prompt(graph: Graph, folders: Folders, targets: Any = None) -> Verdict:
    outputs = []
    for node_id in graph:
        error = _class_error(node_id, graph[node_id])
        if error is not None:
            return Verdict(error)
        if CATALOGUE[graph[node_id]["class_type"]].is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(refusal("prompt_no_outputs", "Prompt has no outputs", ""))
    checks = _Checks(graph, folders)
    failed: list[str] = []
    reasons: list[dict[str, Any]] = []
    for output in outputs:
        is_valid, own = checks.run(output)
        if not is_valid:
            failed.append(output)
            reasons += own
            checks.blame(output)
    good = [output for output in outputs if output not in failed]
    if good:
        return Verdict(None, good, checks.node_errors)
    details = "\n".join(f"{each['message']}: {each['details']}" for each in reasons)
    error = refusal("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return Verdict(error, [], checks.node_errors)


def _class_error(node_id: str, node: Any) -> dict[str, Any] | None:
    if "class_type" not in node:
        title = node.get("_meta", {}).get("title")
        message = (
            f"Node '{title or f'ID #{node_id}'}' has no class_type. The workflow may be corrupted or a custom node is "
            "missing."
        )
        class_type = None
    elif node["class_type"] not in CATALOGUE:
        class_type = node["class_type"]
        title = node.get("_meta", {}).get("title", class_type)
        message = f"Node '{title}' not found. The custom node may not be installed."
    else:
        return None
    extra = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return refusal("missing_node_type", message, f"Node ID '#{node_id}'", extra)


class _Checks:
    """One validation run; results are kept per node, so that a shared ancestor is checked once."""

    def __init__(self, graph: Graph, folders: Folders) -> None:
        self._graph = graph
        self._folders = folders
        self._results: dict[str, tuple[bool, list[dict[str, Any]]]] = {}
        self.node_errors: dict[str, Any] = {}

    def run(self, output: str) -> tuple[bool, list[dict[str, Any]]]:
        try:
            return self._node(output, [])
        except Exception as error:
            extra = {"exception_type": type_name(error), "traceback": traceback.format_tb(error.__traceback__)}
            reason = refusal("exception_during_validation", "Exception when validating node", str(error), extra)
            self._results[output] = (False, [reason])
            return self._results[output]

    def blame(self, output: str) -> None:
        """Books every node found faulty so far against `output`, related or not, as ComfyUI does."""
        for node_id, (is_valid, reasons) in self._results.items():
            if not is_valid and reasons:
                entry = {
                    "errors": reasons,
                    "dependent_outputs": [],
                    "class_type": self._graph[node_id]["class_type"],
                }
                self.node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)

    def _node(self, node_id: str, visiting: list[str]) -> tuple[bool, list[dict[str, Any]]]:
        if node_id in self._results:
            return self._results[node_id]
        if node_id in visiting:
            return self._cycle(node_id, visiting)
        given = self._graph[node_id]["inputs"]
        class_type = self._graph[node_id]["class_type"]
        runner = RUNNERS.get(class_type)
        table = expand_inputs(CATALOGUE[class_type], given, self._folders)
        checked_by_class = runner.validated if runner is not None else ()
        errors: list[dict[str, Any]] = []
        is_valid = True
        for part in ("required", "optional"):
            for name, entry in table.get(part, {}).items():
                if name not in given:
                    if part == "required":
                        errors.append(_missing(name, is_new_style=CATALOGUE[class_type].is_new_style))
                elif isinstance(given[name], list):
                    error, is_source_valid = self._link(node_id, name, given[name], entry, visiting)
                    is_valid = is_valid and is_source_valid
                    errors += [error] if error else []
                else:
                    error = _literal(given, name, entry, is_free=name in checked_by_class)
                    errors += [error] if error else []
        if runner is not None and checked_by_class:
            errors += self._own_checks(runner, given, checked_by_class)
        was_valid, before = self._results.get(node_id, (True, []))
        result = (was_valid and is_valid and not errors, before + [each for each in errors if each not in before])
        self._results[node_id] = result
        return result

    def _cycle(self, node_id: str, visiting: list[str]) -> tuple[bool, list[dict[str, Any]]]:
        path = [*visiting[visiting.index(node_id) :], node_id]
        members = list(dict.fromkeys(path))
        details = " -> ".join(f"{each} ({self._graph[each]['class_type']})" for each in path)
        for member in members:
            extra = {"node_id": member, "cycle_nodes": members}
            reason = refusal("dependency_cycle", "Dependency cycle detected", details, extra)
            self._results[member] = (False, [reason])
        return self._results[node_id]

    def _link(
        self, node_id: str, name: str, value: list[Any], entry: list[Any], visiting: list[str]
    ) -> tuple[dict[str, Any] | None, bool]:
        config = _config(entry)
        if len(value) != 2:
            extra = {"input_name": name, "input_config": config, "received_value": value}
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return refusal("bad_linked_input", message, name, extra), True
        source = CATALOGUE[self._graph[value[0]]["class_type"]]
        given = source.outputs[value[1]]
        if not matches(given, entry[0]):
            extra = {"input_name": name, "input_config": config, "received_type": given, "linked_node": value}
            details = f"{name}, received_type({given}) mismatch input_type({entry[0]})"
            return refusal("return_type_mismatch", "Return type mismatch between linked nodes", details, extra), True
        try:
            return None, self._node(value[0], [*visiting, node_id])[0]
        except Exception as error:
            extra = {
                "input_name": name,
                "input_config": config,
                "exception_message": str(error),
                "exception_type": type_name(error),
                "traceback": traceback.format_tb(error.__traceback__),
                "linked_node": value,
            }
            message = "Exception when validating inner node"
            reason = refusal("exception_during_inner_validation", message, str(error), extra)
            self._results[value[0]] = (False, [reason])
            return None, False

    def _own_checks(self, runner: Any, given: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
        # A linked value is not known yet: the class's own check then gets None and usually raises.
        values = {name: None if is_link(given[name]) else given[name] for name in names if name in given}
        verdict = runner.validate(self._folders, **values)
        if verdict is True:
            return []
        message = "Custom validation failed for node"
        return [
            refusal("custom_validation_failed", message, f"{name} - {verdict}", {"input_name": name}) for name in values
        ]


def _config(entry: list[Any]) -> list[Any]:
    return [entry[0], entry[1] if len(entry) > 1 else {}]


def _missing(name: str, *, is_new_style: bool) -> dict[str, Any]:
    details = name.rsplit(".", 1)[-1] if is_new_style else name
    return refusal("required_input_missing", "Required input is missing", details, {"input_name": name})


def _literal(given: dict[str, Any], name: str, entry: list[Any], *, is_free: bool) -> dict[str, Any] | None:
    kind, options = _config(entry)
    value = given[name]
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = given[name] = value["__value__"]
        if isinstance(kind, str) and kind in CASTS:
            value = given[name] = CASTS[kind](value)
    except Exception as error:
        extra = {
            "input_name": name,
            "input_config": [kind, options],
            "received_value": value,
            "exception_message": str(error),
        }
        message = f"Failed to convert an input value to a {kind} value"
        return refusal("invalid_input_type", message, f"{name}, {value}, {error}", extra)
    extra = {"input_name": name, "input_config": [kind, options], "received_value": value}
    if is_free:
        return None
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return refusal("value_smaller_than_min", message, name, extra)
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return refusal("value_bigger_than_max", message, name, extra)
    if isinstance(kind, list) or kind == "COMBO":
        return _choice(name, value, kind if isinstance(kind, list) else options.get("options", []), extra)
    return None


def _choice(name: str, value: Any, choices: list[Any], extra: dict[str, Any]) -> dict[str, Any] | None:
    if value in choices:
        return None
    printed = str(choices)
    if len(choices) > LONGEST_PRINTED_LIST:
        printed = f"(list of length {len(choices)})"
        extra = extra | {"input_config": None}
    return refusal("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {printed}", extra)

"""A function, ready to be called: its settings held against its workflow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from policy.compiled_policy import Policy
from policy.functions.arguments import read_argument
from policy.functions.settings import FILES, FunctionSettings, ParameterSettings, check_name
from policy.templates.template import Graph, HoledWorkflow
from policy.values import value
from policy.violation import Violation
from policy.workflow import is_ui_format


@dataclass(frozen=True, slots=True)
class Function:
    """workflow: in the API format, with the designer's own values, and what is kept of calls for the next ones. version: of settings and workflow together;
    whoever keeps results can tell by it whether the same call would make the same."""

    name: str
    settings: FunctionSettings
    workflow: HoledWorkflow = field(compare=False, repr=False)
    version: str

    @property
    def graph(self) -> Graph:
        return self.workflow.graph

    @property
    def title(self) -> str:
        return self.settings.title or self.name

    @property
    def parameters(self) -> Mapping[str, ParameterSettings]:
        return self.settings.parameters

    @property
    def outputs(self) -> Mapping[str, str]:
        """Node ids by the names of outputs."""
        return {name: output.node for name, output in self.settings.outputs.items()}

    @property
    def takes_files(self) -> bool:
        return any(parameter.type in FILES for parameter in self.settings.parameters.values())

    @property
    def formats(self) -> frozenset[str]:
        """That outputs are converted to."""
        return frozenset(output.convert for output in self.settings.outputs.values() if output.convert is not None)


@value
class CallableFunction:
    """For a tenant that may call it. policy: by which the workflow is judged."""

    function: Function
    policy: Policy


def make_function(name: str, settings: FunctionSettings, graph: Any) -> Function:
    """Raises ValueError, with one line for each mistake."""
    check_name(name)
    if is_ui_format(graph):
        raise ValueError("the workflow is in the web UI's save format: export it in the API format, Export (API)")
    if not is_graph(graph):
        raise ValueError("the workflow is not in the API format")
    mistakes = [*_find_misfits(settings, graph), *_find_bad_defaults(settings)]
    if mistakes:
        raise ValueError("\n".join(mistakes))
    about = settings.model_dump(mode="json", exclude={"labels"})  # where it runs
    try:
        text = orjson.dumps([about, graph], option=orjson.OPT_SORT_KEYS)
    except TypeError:  # TOML has greater ones (1.0, Integer), JSON readers have not
        raise ValueError(
            "a number has more than 64 bits: write a smaller one, or 1e30 for a bound that is out of reach"
        ) from None
    places = {parameter: given.places for parameter, given in settings.parameters.items()}
    return Function(name, settings, HoledWorkflow(graph, places), hashlib.sha256(text).hexdigest()[:16])


def is_graph(document: Any) -> bool:
    """Whether it is a workflow in the API format."""
    return isinstance(document, dict) and bool(document) and all(map(_is_node, document.values()))


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _find_misfits(settings: FunctionSettings, graph: Mapping[str, Any]) -> list[str]:
    """What the settings name and the workflow has not, or has otherwise."""
    found: list[str] = []
    filled: dict[str, str] = {}
    for name, parameter in settings.parameters.items():
        for place in parameter.fills:
            node_id, _, input_name = place.partition(".")
            inputs = graph.get(node_id, {}).get("inputs", {})
            if input_name not in inputs:
                found.append(f"parameters.{name}: the workflow has no input {place}")
            elif isinstance(inputs[input_name], list):
                found.append(f"parameters.{name}: {place} is a link to another node, which no value takes the place of")
            if place in filled:
                found.append(f"parameters.{name}: {place} is filled by {filled[place]} too")
            filled[place] = name
    found += [
        f"outputs.{name}: the workflow has no node {output.node}"
        for name, output in settings.outputs.items()
        if output.node not in graph
    ]
    return found


def _find_bad_defaults(settings: FunctionSettings) -> list[str]:
    found: list[str] = []
    for name, parameter in settings.parameters.items():
        if parameter.default is None or parameter.type in FILES:
            continue
        try:
            read_argument(name, parameter, parameter.default)
        except Violation as error:
            found.append(f"parameters.{name}.default: {error.message}")
    return found

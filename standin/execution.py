"""Runs one prompt: the shared cache, the order of nodes, their inputs and outputs, and the events on the way.

SECURITY: the cache is keyed by what a graph says, not by who sent it; see tests/contract/test_cache.py.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from standin.catalogue import CATALOGUE
from standin.events import Events, Preview
from standin.execution_events import ExecutionEvents, Failure
from standin.fingerprints import Fingerprints, has_unique_id
from standin.folders import Folders
from standin.graph import CacheKeys, DependencyCycle, Graph, Schedule, is_link
from standin.nodes import RUNNERS
from standin.nodes.runner import Context, Interrupt, Interrupted, Outcome, Runner
from standin.nodes.unavailable import Unavailable
from standin.progress import Progress
from standin.specs import NodeSpec, expand_inputs
from standin.validation import type_name

logger = logging.getLogger(__name__)

MAX_CACHED = 500


@dataclass(frozen=True)
class Cached:
    """`slots[i]` is the list of values of output i; `ui` is what the node showed, with its meta entry."""

    slots: list[list[Any]]
    ui: dict[str, Any] | None


@dataclass(frozen=True)
class Report:
    """A history entry's parts: `result` has outputs and meta, `status` the status object."""

    result: dict[str, Any]
    status: dict[str, Any]


class NodeFailure(Exception):
    def __init__(self, node_id: str, cause: Exception, inputs: dict[str, Any]) -> None:
        super().__init__(str(cause))
        self.node_id, self.cause, self.inputs = node_id, cause, inputs


class Executor:
    """Lives as long as the worker: its caches are what later prompts get."""

    def __init__(self, folders: Folders, events: Events, interrupt: Interrupt) -> None:
        self.folders = folders
        self.events = events
        self.interrupt = interrupt
        self.cache: dict[Any, Cached] = {}
        self.objects: dict[tuple[str, str], Runner] = {}

    def forget(self) -> None:
        self.cache.clear()
        self.objects.clear()

    def evict(self, used: set[Any]) -> None:
        """Drops those results beyond the limit that were used the longest ago; ComfyUI does so when memory runs short
        (comfy_execution/caching.py, RAMPressureCache)."""
        for key in [key for key in self.cache if key in used]:
            self.cache[key] = self.cache.pop(key)
        for key in [key for key in self.cache if key not in used][: max(0, len(self.cache) - MAX_CACHED)]:
            del self.cache[key]

    def run(self, graph: Graph, prompt_id: str, extra_data: dict[str, Any], outputs: list[str]) -> Report:
        self.interrupt.clear()
        self.events.current_client = extra_data.get("client_id")
        return PromptRun(self, graph, prompt_id, extra_data).run(outputs)


class PromptRun:
    def __init__(self, executor: Executor, graph: Graph, prompt_id: str, extra_data: dict[str, Any]) -> None:
        self.executor = executor
        self.events = executor.events
        self.graph = graph
        self.prompt_id = prompt_id
        self.extra_data = extra_data
        self.progress = Progress(executor.events, prompt_id)
        self._told = ExecutionEvents(executor.events, graph, prompt_id)
        self.shown: dict[str, dict[str, Any]] = {}
        self.executed: set[str] = set()
        self._prints = Fingerprints(graph, executor.folders)
        self._keys: dict[str, Any] = {}
        self._schedule = Schedule(graph, self._is_cached, self._is_output, self._is_lazy)

    def run(self, outputs: list[str]) -> Report:
        self._told.tell("execution_start", {"prompt_id": self.prompt_id})
        keys = CacheKeys(self.graph, self._prints.of, has_unique_id)
        self._keys = {node_id: keys.of(node_id) for node_id in self.graph}
        used = {(node_id, node["class_type"]) for node_id, node in self.graph.items()}
        self.executor.objects = {key: value for key, value in self.executor.objects.items() if key in used}
        self.executor.evict(set(self._keys.values()))
        cached = [node_id for node_id in self.graph if self._is_cached(node_id)]
        self._told.tell("execution_cached", {"nodes": cached, "prompt_id": self.prompt_id})
        for node_id in outputs:
            self._schedule.add(node_id)
        is_success = self._run_nodes()
        if is_success:
            self._told.tell("execution_success", {"prompt_id": self.prompt_id})
        self.events.current_node = None
        result = {
            "outputs": {node_id: ui["output"] for node_id, ui in self.shown.items()},
            "meta": {node_id: ui["meta"] for node_id, ui in self.shown.items()},
        }
        status = {"status_str": "success" if is_success else "error", "completed": is_success}
        return Report(result, status | {"messages": self._told.messages})

    def _run_nodes(self) -> bool:
        try:
            while (node_id := self._schedule.next()) is not None:
                if self._node(node_id):
                    self._schedule.done(node_id)
        except DependencyCycle as error:
            self._told.fail(Failure(error.node_id, error, [], "graph.DependencyCycleError"), self.executed, self._keys)
        except NodeFailure as failure:
            if isinstance(failure.cause, Interrupted):
                logger.info("Processing interrupted")
                details = self._told.about(failure.node_id) | {"executed": list(self.executed)}
                self._told.tell("execution_interrupted", details, is_for_all=True)
            else:
                kind = type_name(failure.cause)
                told = Failure(failure.node_id, failure.cause, failure.inputs, kind)
                self._told.fail(told, self.executed, self._keys)
        else:
            return True
        return False

    def _node(self, node_id: str) -> bool:
        """Runs a node, or takes it from the cache; False when it has to wait for a lazy input first."""
        known = self.executor.cache.get(self._keys[node_id])
        if known is not None:
            self._show_again(node_id, known)
            return True
        inputs: dict[str, list[Any]] = {}
        try:
            self.progress.start(node_id)
            inputs = self._inputs(node_id)
            if self.events.current_client is not None:
                self.events.current_node = node_id
                message = {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id}
                self.events.send("executing", message, self.events.current_client)
            runner = self._object(node_id)
            wanted = self._wanted(runner, node_id, inputs)
            if wanted:
                for name in wanted:
                    self._schedule.require(node_id, name)
                return False
            self._store(node_id, [runner.run(self._context(node_id), **each) for each in self._calls(node_id, inputs)])
        except Exception as error:
            raise NodeFailure(node_id, error, inputs) from error
        self.progress.finish(node_id)
        self.executed.add(node_id)
        return True

    def _show_again(self, node_id: str, known: Cached) -> None:
        if known.ui is not None:
            self.shown[node_id] = known.ui
        if self.events.current_client is not None:
            self._told.executed(node_id, known.ui["output"] if known.ui else None)
        self.progress.finish(node_id)

    def _store(self, node_id: str, outcomes: list[Outcome]) -> None:
        spec = self._spec(node_id)
        shown = [outcome.ui for outcome in outcomes if outcome.ui]
        ui = None
        if shown:
            output = {key: [item for each in shown for item in each[key]] for key in shown[0]}
            meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
            ui = self.shown[node_id] = {"meta": meta, "output": output}
            if self.events.current_client is not None:
                self._told.executed(node_id, output)
        are_lists = spec.output_is_list or (False,) * len(spec.outputs)
        slots: list[list[Any]] = []
        for index, is_list in zip(range(len(outcomes[0].values)), are_lists, strict=False):
            values = [outcome.values[index] for outcome in outcomes]
            slots.append([item for value in values for item in value] if is_list else values)
        self.executor.cache[self._keys[node_id]] = Cached(slots, ui)

    def _inputs(self, node_id: str) -> dict[str, list[Any]]:
        """Lists of values by input. Undeclared literals are left out; undeclared links are not."""
        given = self.graph[node_id]["inputs"]
        table = expand_inputs(self._spec(node_id), given, self.executor.folders)
        declared = {name for part in table.values() for name in part}
        values: dict[str, list[Any]] = {}
        for name, value in given.items():
            if is_link(value):
                values[name] = self._linked(value)
            elif name in declared:
                values[name] = [value]
        return values

    def _linked(self, link: list[Any]) -> list[Any]:
        known = self.executor.cache.get(self._keys.get(link[0]))
        if known is None or link[1] >= len(known.slots):
            return [None]
        return known.slots[link[1]]

    def _calls(self, node_id: str, inputs: dict[str, list[Any]]) -> list[dict[str, Any]]:
        """The keyword arguments of each call: lists are walked in step, the shorter ones repeat their last value."""
        if self._spec(node_id).takes_lists or not inputs:
            return [dict(inputs)]
        count = max(len(values) for values in inputs.values())
        return [{name: values[min(n, len(values) - 1)] for name, values in inputs.items()} for n in range(count)]

    def _wanted(self, runner: Runner, node_id: str, inputs: dict[str, list[Any]]) -> list[str]:
        if not runner.has_lazy_inputs:
            return []
        wanted = [name for call in self._calls(node_id, inputs) for name in runner.wanted_inputs(**call)]
        given = self.graph[node_id]["inputs"]
        return [name for name in wanted if is_link(given.get(name)) and not self._is_cached(given[name][0])]

    def _object(self, node_id: str) -> Runner:
        class_type = self.graph[node_id]["class_type"]
        key = (node_id, class_type)
        if key not in self.executor.objects:
            self.executor.objects[key] = RUNNERS.get(class_type, Unavailable)(self.executor.folders)
        return self.executor.objects[key]

    def _context(self, node_id: str) -> Context:
        check_interrupt = self.executor.interrupt.check

        def progress(value: float, highest: float, preview: Preview | None) -> None:
            check_interrupt()
            self.progress.update(node_id, value, highest, preview)

        check_interrupt()
        return Context(
            folders=self.executor.folders,
            node_id=node_id,
            prompt_id=self.prompt_id,
            prompt=self.graph,
            extra_data=self.extra_data,
            progress=progress,
            check_interrupt=check_interrupt,
            tell_text=lambda text: self.events.text(node_id, text),
        )

    def _spec(self, node_id: str) -> NodeSpec:
        return CATALOGUE[self.graph[node_id]["class_type"]]

    def _is_cached(self, node_id: str) -> bool:
        return self._keys.get(node_id) in self.executor.cache

    def _is_output(self, node_id: str) -> bool:
        return self._spec(node_id).is_output

    def _is_lazy(self, node_id: str, input_name: str) -> bool:
        spec = self._spec(node_id)
        declared = spec.required.get(input_name) or spec.optional.get(input_name)
        return bool(declared and declared.options and declared.options.get("lazy"))

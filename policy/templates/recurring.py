"""Workflows that a tenant sends again with other values: of one of which two came, the next ones are read as the bytes of these with holes where they differ
(holes.py), and judged by what stands there (template.py).

Clients send one workflow hundreds of times: another seed, another text. What is certain of it is found once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import orjson

from policy.document import check_parts
from policy.patience import AT_ONCE_PARTS, ENDLESS, Patience
from policy.prepared import Prepared, check_prompt_id, prepare
from policy.principal import TenantId
from policy.rule_context import RuleInput
from policy.templates.holes import Holes, Path, find_changes, is_like, make_holes, spelling_of
from policy.templates.learning import prepare_and_learn
from policy.templates.template import HoledWorkflow, Template, Templates, key_of, size_of
from policy.values import value

MAX_WORKFLOWS: Final = 8
"""Of a tenant: each is compared with what comes."""
MAX_SENT: Final = 4
MAX_TENANT_BYTES: Final = 256 * 1024
MAX_BYTES: Final = 2 * 1024**2
"""Of all tenants' workflows, as they were sent: what is made of one takes some sixteen times as much."""
OVERHEAD_BYTES: Final = 4096
"""Of each, however small it is: what is made of it takes 14 KiB at least, and with other kinds of values and costs up to 80."""
MAX_TEMPLATES: Final = 4
"""Of one workflow: its client decides with which kinds of values it comes."""
REST: Final = 8
"""So many others are judged after two were compared and found alike, before two are compared again; after each time that it was for nothing twice as many
as the last time. It costs about what judging does."""
MAX_REST: Final = 1024
MAX_COMPARED: Final = AT_ONCE_PARTS
"""Objects and lists, about, of those that one is compared with together. A workflow of 700 nodes has some 4,000, without what the web UI adds."""
_CLASS: Final = b'"class_type"'
_NOTHING: Final[Mapping[type, Any]] = {str: "", int: 0, float: 0.0, bool: False}
_SOME_ID: Final = "00000000-0000-4000-8000-000000000000"


class Given(NamedTuple):
    """What stands in the holes. values: of inputs, by parameter. passed: of what ComfyUI only keeps."""

    values: Mapping[str, Any]
    passed: Sequence[Any]
    prompt_id: str | None


@value
class RecurringWorkflow:
    """raw: how it was sent. found: what stood in its holes: those of inputs, then those in extra_pnginfo, at last that of an id, where it has one; nothing
    but the kind of value in what no judge looks at. members: names of the document's. tail: of what ComfyUI gets, all behind the nodes, with the holes in
    extra_pnginfo; None without them.
    """

    raw: bytes
    holes: Holes
    found: Sequence[Any]
    workflow: HoledWorkflow
    has_id: bool
    members: tuple[str, ...]
    tail: Holes | None = None

    def read(self, raw: bytes, ends: dict[int, int]) -> Given | None:
        """None for another workflow. ends: see Holes.read."""
        found = self.holes.read(raw, ends)
        if found is None:
            return None
        # Mostly of the very types that came first; else a number is like any other.
        is_usual = [*map(type, found)] == [*map(type, self.found)]
        return self.given(found) if is_usual or all(map(is_like, self.found, found)) else None

    def given(self, found: Sequence[Any]) -> Given:
        count = len(self.workflow.places)
        values = dict(zip(self.workflow.places, found, strict=False))
        return Given(values, found[count : len(found) - self.has_id], found[-1] if self.has_id else None)

    def prepare(self, given: Given, request: RuleInput, patience: Patience) -> Prepared:
        """As policy.prepared.prepare."""
        template = self.template_for(given, request)
        prepared = None if template is None else template.fill(given.values, request, patience)
        if prepared is None:
            prepared = self.learn(given, request, patience)
        made = None if prepared is None else self.with_rest(prepared, given)
        return prepare(request, patience) if made is None else made

    def template_for(self, given: Given, request: RuleInput) -> Template | None:
        key = key_of(request.context.names.tenant, request.context.policy, given.values)
        return self.workflow.templates.find(key, request.context)[1]

    def learn(self, given: Given, request: RuleInput, patience: Patience) -> Prepared | None:
        """As policy.prepared.prepare, with nothing in what no judge looks at. None where it is too large with that: false is longer than true."""
        raw = self.holes.written([*given.values.values(), *self.found[len(given.values) :]])
        most = request.context.policy.max_prompt_bytes
        if most is not None and len(raw) > most:
            return None
        return prepare_and_learn(self.workflow, given.values, replace(request, raw=raw), patience)

    def with_rest(self, prepared: Prepared, given: Given) -> Prepared | None:
        """prepared: with nothing in what no judge looks at. None where its body does not end as the first one's did."""
        if self.has_id:
            wish = replace(prepared.wish, prompt_id=check_prompt_id(given.prompt_id))
            prepared = replace(prepared, wish=wish)
        if self.tail is None:
            return prepared
        body, end = prepared.body, self.tail.written(self.given(self.found).passed)
        rest = self.tail.written(given.passed)
        return replace(prepared, body=body.removesuffix(end) + rest) if body.endswith(end) else None


class Again(NamedTuple):
    """A workflow that came before, with other values."""

    workflow: RecurringWorkflow
    given: Given

    def prepare(self, request: RuleInput, patience: Patience) -> Prepared:
        """As policy.prepared.prepare; in a thread, which is who has endless patience, by that itself."""
        return (
            prepare(request, patience) if patience is ENDLESS else self.workflow.prepare(self.given, request, patience)
        )


class Made(NamedTuple):
    """passed: where the holes in extra_pnginfo are. given: what stands in the holes of the second submission."""

    workflow: RecurringWorkflow
    passed: Sequence[Path]
    given: Given


def make_recurring(before: bytes, raw: bytes) -> Made | None:
    """What two submissions have alike. None where they differ in what decides more than values."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    changes = find_changes(orjson.loads(before), document)
    spell = spelling_of(raw, document) if changes else None
    if not changes or spell is None:
        return None
    inputs = [path for path in changes if len(path) == 4 and path[0] == "prompt" and path[2] == "inputs"]
    passed = [path for path in changes if len(path) > 2 and path[:2] == ("extra_data", "extra_pnginfo")]
    ids = [path for path in changes if path == ("prompt_id",)]
    if len(inputs) + len(passed) + len(ids) < len(changes):
        return None
    places = {str(number): ((str(path[1]), str(path[3])),) for number, path in enumerate(inputs)}
    holes = make_holes(document, [*inputs, *passed, *ids], spell)
    found = holes.read(raw)
    assert found is not None, "it was written by this spelling"
    graph = {**document["prompt"]}
    for [(node_id, name)], given in zip(places.values(), found, strict=False):
        graph[node_id]["inputs"][name] = given
    workflow = HoledWorkflow(graph, places, Templates(MAX_TEMPLATES * size_of(len(raw))))
    nothing = [_NOTHING[type(value)] for value in found[len(inputs) : len(found) - len(ids)]]
    made = RecurringWorkflow(
        raw, holes, [*found[: len(inputs)], *nothing, *([_SOME_ID] if ids else [])], workflow, bool(ids), (*document,)
    )
    return Made(made, passed, made.given(found))


def _tail_of(body: bytes, passed: Sequence[Path]) -> Holes:
    """body: with all that was sent in extra_pnginfo."""
    document = orjson.loads(body)
    written = len(orjson.dumps({"prompt": document["prompt"]})) - 1
    first, *pieces = (holes := make_holes(document, passed)).pieces
    return Holes((first[written:], *pieces), holes.order)


@dataclass(slots=True)
class _Shelf:
    """Of a tenant, the last ones first. rest: how many are judged before two are compared again."""

    known: list[RecurringWorkflow] = field(default_factory=list)
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    rest: int = 0
    next_rest: int = 1

    @property
    def held_bytes(self) -> int:
        count = len(self.known) + len(self.sent)
        return (
            sum(len(each.raw) for each in self.known) + sum(len(raw) for _, raw in self.sent) + OVERHEAD_BYTES * count
        )

    def drop_oldest(self) -> int:
        """How many bytes that was."""
        held = self.held_bytes
        if self.sent:
            self.sent.pop()
        else:
            self.known.pop()
        return held - self.held_bytes


class RecurringWorkflows:
    """Of all tenants; a tenant's are compared with its own alone. Used by the event loop only."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._shelves: dict[TenantId, _Shelf] = {}
        self.held_bytes = 0

    def prepare(self, request: RuleInput, patience: Patience) -> Prepared:
        """As policy.prepared.prepare, and sooner where the workflow came before with other values. Endless patience is that of a thread, which knows none."""
        if patience is ENDLESS or not _may_recur(request):
            return prepare(request, patience)
        if (again := self._find(request)) is not None:
            return again.prepare(request, patience)
        tenant = request.context.names.tenant
        shelf = self._shelves.get(tenant) or _Shelf()
        held = shelf.held_bytes
        prepared = _compared(shelf, request, patience)
        self._shelves[tenant] = shelf  # by now there is something on it
        self._keep_few(shelf, held)
        return prepared

    def find(self, request: RuleInput) -> Again | None:
        """What it is known as; None also where it is to be looked at with care. Raises Violation(body-malformed) for what has too many parts."""
        return self._find(request) if _may_recur(request) else None

    def _find(self, request: RuleInput) -> Again | None:
        raw = request.raw
        check_parts(raw, request.max_parts)
        shelf = self._shelves.get(request.context.names.tenant)
        if shelf is None:
            return None
        ends: dict[int, int] = {}
        for number, workflow in enumerate(shelf.known):
            if (given := workflow.read(raw, ends)) is not None:
                if number:
                    shelf.known.insert(0, shelf.known.pop(number))
                return Again(workflow, given)
        return None

    def _keep_few(self, shelf: _Shelf, held_before: int) -> None:
        del shelf.known[MAX_WORKFLOWS:], shelf.sent[MAX_SENT:]
        while shelf.held_bytes > MAX_TENANT_BYTES:
            shelf.drop_oldest()
        self.held_bytes += shelf.held_bytes - held_before
        while self.held_bytes > self._max_bytes:
            tenant, largest = max(self._shelves.items(), key=lambda item: item[1].held_bytes)
            self.held_bytes -= largest.drop_oldest()
            if not largest.held_bytes:
                del self._shelves[tenant]


def _may_recur(request: RuleInput) -> bool:
    """Whether it is looked for among what came before."""
    most = request.context.policy.max_prompt_bytes
    return (most is None or len(request.raw) <= most) and not request.credentials.may_stand_in(request.raw)


def _compared(shelf: _Shelf, request: RuleInput, patience: Patience) -> Prepared:
    """With those before it of as many nodes; and kept."""
    raw = request.raw
    nodes = raw.count(_CLASS)
    shelf.rest = max(0, shelf.rest - 1)
    like = [] if shelf.rest else [each for count, each in shelf.sent if count == nodes]
    # SECURITY: 128 KiB have room for 65,000 lists within lists (test_recurring.py::test_what_has_many_parts_is_compared_with_few).
    like = like[: MAX_COMPARED // (1 + raw.count(b"{") + raw.count(b"["))]
    if like:
        shelf.rest = shelf.next_rest = min(2 * shelf.next_rest, MAX_REST)
    for before in like:
        if (made := make_recurring(before, raw)) is not None:
            prepared, workflow = _prepare_first(made, request, patience)
            if workflow is not None:
                shelf.rest = shelf.next_rest = REST
                shelf.known.insert(0, workflow)
                shelf.sent.remove((nodes, before))
            return prepared
    prepared = prepare(request, patience)
    shelf.sent.insert(0, (nodes, raw))
    return prepared


def _prepare_first(made: Made, request: RuleInput, patience: Patience) -> tuple[Prepared, RecurringWorkflow | None]:
    """With the workflow where others like it can be read from now on."""
    workflow, passed, given = made
    prepared = workflow.learn(given, request, patience)
    if prepared is None or workflow.template_for(given, request) is None:
        return prepare(request, patience), None
    if passed:
        workflow = replace(workflow, tail=_tail_of(prepared.body, passed))
    return workflow.with_rest(prepared, given) or prepare(request, patience), workflow

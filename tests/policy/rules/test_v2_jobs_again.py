"""POST /api/v2/jobs of a workflow that came before with other values: it asks for the same, and is answered alike, as if nothing were known of those."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.call import RecordJob
from policy.keyform import presented
from policy.patience import AT_ONCE_BYTES
from policy.rule_context import RuleContext
from policy.rules import prompt
from policy.rules import v2_jobs as rules
from policy.templates.recurring import RecurringWorkflows
from policy.violation import Violation
from tests.policy.functions.calling import answer_of as answered
from tests.policy.functions.calling import context_of, policy_of, steps_of
from tests.policy.templates.test_template import GRAPH, KEY, PARTS, SECRET
from tests.policy.tenants import request_of
from tests.policy.v2.examples import reference

ALICE = context_of()
SPELLINGS = (
    orjson.dumps,
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(),
    lambda value: json.dumps(value, indent=1).encode(),
)
MARK = "the mark"


def graph(seed: Any = 1, text: Any = "a") -> dict[str, Any]:
    nodes = {node_id: copy.deepcopy(GRAPH[node_id]) for node_id in PARTS[0]}
    nodes["3"]["inputs"]["seed"] = seed
    nodes["6"]["inputs"]["text"] = text
    return nodes


def body(seed: Any = 1, text: Any = "a", spell: Any = orjson.dumps, **more: Any) -> bytes:
    written: bytes = spell({"workflow": graph(seed, text)} | more)
    return written


def submitted(raw: bytes, known: RecurringWorkflows | None, context: RuleContext = ALICE, **more: Any) -> Any:
    """All that the submission asks for, and its answer or why it is refused."""
    asked = replace(request_of(replace(context, recurring=known), method="POST", raw=raw), **more)
    rule, steps, reply = rules.submit(asked), list[Any](), None
    try:
        step = next(rule)
        while True:
            steps.append(step)
            step = rule.send(answered(step))
    except StopIteration as end:
        reply = end.value
    except Violation as violation:
        reply = vars(violation)
    return [step for step in steps if type(step).__name__ != "Work"], reply


def both(raw: bytes, known: RecurringWorkflows, context: RuleContext = ALICE, **more: Any) -> Any:
    expected = submitted(raw, None, context, **more)
    assert submitted(raw, known, context, **more) == expected
    return expected


def learned(spell: Any = orjson.dumps) -> RecurringWorkflows:
    known = RecurringWorkflows()
    for seed in (1, 2):
        assert both(body(seed, f"t{seed}", spell), known)[1].status == 201
    return known


def is_read(raw: bytes, known: RecurringWorkflows, **more: Any) -> bool:
    """Whether the document is read as a whole."""
    with mock.patch.object(rules, "_read", wraps=rules._read) as reading:
        submitted(raw, known, **more)
    return bool(reading.called)


@pytest.mark.parametrize("spell", SPELLINGS[:3])
def test_a_workflow_that_comes_again_is_not_read_anew(spell: Any) -> None:
    known = learned(spell)
    raw = body(77, "another", spell)
    assert not is_read(raw, known)
    steps, reply = both(raw, known)
    record = next(step for step in steps if isinstance(step, RecordJob))
    assert b'"seed":77' in record.body
    assert b'"another"' in record.body
    assert reply.body["metadata"] == {}


ODD_BODIES = {
    "with labels": body(3, metadata={"a": "b"}),
    "with labels before": orjson.dumps({"metadata": {"a": "b"}, "workflow": graph(3)}),
    "with bad labels": body(3, metadata={"a": 1}),
    "with a key of paid services": body(3, extra_data={"api_key_comfy_org": "x"}),
    "with more than that": body(3, extra_data={"extra_pnginfo": {}}),
    "with a reserved member": body(3, webhook_url="https://a.example/"),
    "with an unknown member": body(3, prompt=graph(4)),
    "twice": b'{"workflow":%s,"workflow":%s}' % (orjson.dumps(graph(3)), orjson.dumps(graph(4))),
    "twice, escaped": b'{"workflow":%s,"w\\u006frkflow":%s}' % (orjson.dumps(graph(3)), orjson.dumps(graph(4))),
    "with a prompt": b'{"workflow":%s,"client_id":"x"}' % orjson.dumps(graph(3)),
    "with white space": b' {"workflow": %s }\n' % orjson.dumps(graph(3)),
    "without an end": body(3)[:-1],
    "with two ends": body(3) + b"}",
    "with more behind": body(3) + b" {}",
    "with an asset": body(3, reference("00000000-0000-4000-8000-000000000100")),
    "with an escaped asset": body(3, MARK).replace(b'"the mark"', b'{"__type":"core\\u002fASSET","info":{"id":"x"}}'),
    "with half a character": body(3, MARK).replace(b"the mark", b"\\ud800"),
    "with a line end in a text": body(3, MARK).replace(b"the mark", b"a\nb"),
    "with a number that none is": body(12345).replace(b"12345", b"01"),
    "with a key of the gate": body(3, KEY),
    "with the caller's credential": body(3, SECRET),
    "with another kind of value": body("text"),
    "with a list for a text": body(3, ["4", 1]),
    "too large to be looked at at once": body(3, "x" * AT_ONCE_BYTES),
    "of another workflow": orjson.dumps({"workflow": {node_id: GRAPH[node_id] for node_id in PARTS[1]}}),
    "no object": b'{"workflow":}',
    "empty": b'{"workflow":{}}',
}


@pytest.mark.parametrize("name", ODD_BODIES)
@pytest.mark.parametrize("is_spaced", [False, True])
def test_what_is_more_than_that_workflow_is_read_and_answered_as_ever(name: str, is_spaced: bool) -> None:
    known = learned(SPELLINGS[1] if is_spaced else orjson.dumps)
    both(ODD_BODIES[name], known, credentials=presented([SECRET]))


MORE = ({"metadata": {"a": "b"}}, {"extra_data": {"extra_pnginfo": {"workflow": {"id": "x"}}}}, {"priority": 3})


@pytest.mark.parametrize("more", MORE)
def test_a_body_of_post_prompt_teaches_nothing_about_what_stands_beside_a_workflow(more: dict[str, Any]) -> None:
    """What was sent there has the same bytes around a workflow, and other members in between, which mean something else here."""
    known = RecurringWorkflows()
    context = replace(ALICE, recurring=known)
    for seed in (1, 2, 3):
        raw = orjson.dumps({"prompt": graph(seed)} | more | {"client_id": "api-v2"})
        steps_of(prompt.submit(request_of(context, method="POST", raw=raw)))
    both(body(4, **more), known)
    assert is_read(body(4, **more), known)


def test_a_workflow_that_is_taken_as_it_is_written_closely_is_taken_as_it_was_spelled() -> None:
    """A policy bounds how large a workflow is that ComfyUI gets, and not how many spaces its client writes."""
    closely = len(orjson.dumps({"prompt": graph(3), "client_id": "api-v2"}))
    context = context_of(policy=policy_of(max_prompt_bytes=closely))
    known = RecurringWorkflows()
    for seed in (1, 2, 3, 4):
        assert both(body(seed, spell=SPELLINGS[1]), known, context)[1].status == 201


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_body_is_answered_as_if_it_were_the_first(data: st.DataObject) -> None:
    spell = data.draw(st.sampled_from(SPELLINGS))
    known = learned(spell)
    for number in range(data.draw(st.integers(1, 3))):
        text = data.draw(
            st.text(max_size=8) | st.sampled_from([KEY, SECRET, '"', "\\", "core/ASSET", ',"client_id":"api-v2"}'])
        )
        raw = body(number, text, spell)
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(raw)))
            put = data.draw(st.sampled_from([b"", b"}", b"{", b'"', b",", b" ", b":", b'"metadata":{},', b"\\", b"1"]))
            raw = raw[:at] + put + raw[at + data.draw(st.integers(0, 2)) :]
        both(raw, known, credentials=presented([SECRET]))

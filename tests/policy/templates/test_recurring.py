"""A workflow that is sent again asks for the same as it would if nothing were known of those before it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.judge import Policy
from policy.keyform import presented
from policy.patience import AT_ONCE_EFFORT, ENDLESS, Patience
from policy.principal import TenantId
from policy.rule_context import RuleContext
from policy.rules import prompt
from policy.templates import recurring
from policy.templates.recurring import (
    MAX_COMPARED,
    MAX_REST,
    MAX_SENT,
    MAX_TENANT_BYTES,
    MAX_WORKFLOWS,
    REST,
    RecurringWorkflows,
)
from policy.violation import Violation
from tests.policy.functions.calling import NO_IDS, OPEN, context_of, policy_of, steps_of
from tests.policy.templates.test_template import (
    BY_ID,
    CONTEXTS,
    GRAPH,
    KEY,
    NUMBERS,
    ODD,
    PARTS,
    POLICIES,
    SECRET,
    TEXTS,
)
from tests.policy.tenants import request_of

ALICE = context_of()
IDS = [f"0000000{number}-0000-4000-8000-000000000000" for number in range(3)]
SPELLINGS = (
    orjson.dumps,
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(),
    lambda value: json.dumps(value, indent=1).encode(),
)


def submitted(raw: bytes, context: RuleContext, known: RecurringWorkflows | None, **more: Any) -> tuple[list[Any], Any]:
    """All that the submission asks for, and how it is answered."""
    asked = replace(request_of(replace(context, recurring=known), method="POST", raw=raw), **more)
    return steps_of(prompt.submit(asked))


def both(raw: bytes, known: RecurringWorkflows, context: RuleContext = ALICE, **more: Any) -> tuple[list[Any], Any]:
    expected = submitted(raw, context, None, **more)
    assert submitted(raw, context, known, **more) == expected
    return expected


def is_known(raw: bytes, known: RecurringWorkflows, context: RuleContext = ALICE) -> bool:
    """Whether it is judged without being read as a whole; and it must be judged alike then."""
    with (
        mock.patch.object(recurring, "prepare", side_effect=_Whole),
        mock.patch.object(recurring, "prepare_and_learn", side_effect=_Whole),
    ):
        try:
            found = submitted(raw, context, known)
        except _Whole:
            return False
    assert found == submitted(raw, context, None)
    return True


class _Whole(Exception):
    pass


def body(seed: Any = 1, text: Any = "a", **more: Any) -> bytes:
    nodes = {node_id: copy.deepcopy(GRAPH[node_id]) for node_id in PARTS[0]}
    nodes["3"]["inputs"]["seed"] = seed
    nodes["6"]["inputs"]["text"] = text
    return orjson.dumps({"client_id": "c", "prompt": nodes} | more)


def learned(*bodies: bytes, context: RuleContext = ALICE) -> RecurringWorkflows:
    known = RecurringWorkflows()
    for raw in bodies:
        both(raw, known, context)
    return known


def scalars_of(graph: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for node_id, node in graph.items():
        for name, value in node["inputs"].items():
            if type(value) in (str, int, float, bool):
                yield node_id, name


@st.composite
def a_story(draw: st.DrawFn) -> Any:
    """Submissions of one workflow, of which a few values are others each time, and now and then something else."""
    chosen = {node_id for part in draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=2)) for node_id in part}
    odd = draw(st.none() | st.none() | st.none() | st.sampled_from(sorted(ODD)))
    graph = {node_id: GRAPH[node_id] for node_id in GRAPH if node_id in chosen} | ({odd: ODD[odd]} if odd else {})
    scalars = [*scalars_of(graph)]
    places = draw(st.lists(st.sampled_from(scalars), unique=True, min_size=1, max_size=3)) if scalars else []
    has_workflow, has_id, spell = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(SPELLINGS))
    sent = []
    for number in range(draw(st.integers(3, 6))):
        document: dict[str, Any] = {"client_id": "c", "prompt": copy.deepcopy(graph)}
        for node_id, name in places:
            own = GRAPH.get(node_id, ODD.get(node_id, {}))["inputs"][name]
            usual = f"{own}{number}" if type(own) is str else own + number if type(own) is float else own
            odd_values = {str: TEXTS, int: NUMBERS | st.just(7.5), float: NUMBERS, bool: st.booleans()}[type(own)]
            values = st.just(usual) | st.just(usual) | odd_values | st.sampled_from([None, [], {"a": 1}, ["6", 0]])
            document["prompt"][node_id]["inputs"][name] = draw(values)
        if has_workflow:
            usual = draw(st.sampled_from([f"x{number}", f"y{number}", "ü", 'a "b"']))
            shown = draw(st.just(usual) | st.just(usual) | st.sampled_from([KEY, SECRET, "own.png [temp]", 1.5, None]))
            document["extra_data"] = {
                "extra_pnginfo": {"workflow": {"id": "w", "nodes": [{"widgets_values": [shown]}]}}
            }
        if has_id:
            document["prompt_id"] = draw(st.sampled_from([*IDS, *IDS, "no id", 5]))
        if draw(st.integers(0, 9)) == 0:
            document["prompt"]["99"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
        sent.append((spell(document), draw(st.integers(0, len(CONTEXTS) - 1)), draw(st.integers(0, 4)) == 0))
    return draw(st.integers(0, len(POLICIES) - 1)), draw(st.booleans()), sent


@given(a_story())
def test_each_is_judged_as_if_it_were_the_first(story: Any) -> None:
    policy, has_ids, sent = story
    known = RecurringWorkflows()
    for raw, context, has_secret in (*sent, *sent):
        asking = replace(CONTEXTS[context], policy=POLICIES[policy], id_inputs=BY_ID if has_ids else NO_IDS)
        both(raw, known, asking, credentials=presented([SECRET] if has_secret else []))


def test_the_third_is_read_through_the_holes() -> None:
    known = learned(body(1, "a"), body(2, "b"))
    assert is_known(body(3, "c"), known)
    assert is_known(body(2**64 - 1, 'ä "quoted" \n text, with: everything {}[]'), known)
    assert not is_known(body(3, "c", front=True), known)


@pytest.mark.parametrize(
    "spell", [orjson.dumps, lambda value: json.dumps(value).encode()], ids=["JSON.stringify", "json.dumps"]
)
def test_clients_in_javascript_and_python_are_known(spell: Any) -> None:
    sent = [
        spell(orjson.loads(body(seed, f"text {seed} ä" if spell is orjson.dumps else f"text {seed} \u4e16")))
        for seed in range(3)
    ]
    assert is_known(sent[2], learned(*sent[:2]))


def test_what_the_policy_binds_is_judged_each_time() -> None:
    context = replace(ALICE, policy=policy_of(inputs={"*.text": {"max_length": 3}}))
    known = learned(body(1, "a"), body(2, "b"), context=context)
    assert is_known(body(3, "abc"), known, context)
    _, violation = both(body(3, "abcd"), known, context)
    assert violation is not None
    assert is_known(body(4, "xyz"), known, context)


def test_what_comfyui_refuses_is_left_to_it() -> None:
    known = learned(body(1), body(2))
    steps, _ = both(body(-1), known)
    assert steps == both(body(-1), RecurringWorkflows())[0]


def test_a_workflow_of_the_web_ui_has_its_values_in_the_picture_too() -> None:
    def shown(seed: int) -> bytes:
        return body(
            seed,
            extra_data={"extra_pnginfo": {"workflow": {"id": "w", "nodes": [{"widgets_values": [seed, "fixed"]}]}}},
        )

    known = learned(shown(1), shown(2))
    assert is_known(shown(3), known)
    steps, _ = submitted(shown(4), ALICE, known)
    [record] = [step for step in steps if type(step).__name__ == "RecordJob"]
    assert b'"widgets_values":[4,"fixed"]' in record.body


def test_each_has_its_own_id() -> None:
    known = learned(body(1, prompt_id=IDS[0]), body(2, prompt_id=IDS[1]))
    assert is_known(body(3, prompt_id=IDS[2]), known)
    steps, violation = both(body(3, prompt_id="no id"), known)
    assert violation is not None
    assert not steps


def test_a_text_in_the_place_of_a_number_is_read_as_a_whole() -> None:
    known = learned(body(1), body(2))
    assert not is_known(body("3"), known)
    both(body(2.5), known)
    assert is_known(body(3.5), known)  # of its own kind, by now
    assert is_known(body(4), known)


@pytest.mark.parametrize("text", [SECRET, f"{SECRET}!", KEY])
def test_a_credential_is_found_wherever_it_stands(text: str) -> None:
    known = learned(body(1, "a"), body(2, "b"))
    _, violation = both(body(3, text), known, credentials=presented([SECRET]))
    assert violation is not None


def test_a_credential_is_found_in_what_comfyui_only_keeps() -> None:
    def shown(text: str) -> bytes:
        return body(extra_data={"extra_pnginfo": {"workflow": {"note": text}}})

    known = learned(shown("a"), shown("b"))
    assert is_known(shown("c"), known)
    _, violation = both(shown(SECRET), known, credentials=presented([SECRET]))
    assert violation is not None


def test_what_is_larger_than_its_policy_takes_is_refused_however_it_is_written() -> None:
    def sized(cfg: bytes) -> bytes:
        return body().replace(b'"cfg":7.5,', b'"cfg":%s,' % cfg)

    context = replace(ALICE, policy=policy_of(max_prompt_bytes=len(sized(b"7.50")) + 2))
    known = learned(sized(b"7.50"), sized(b"8.50"), sized(b"9.50"), context=context)
    _, violation = both(sized(b"9.500000"), known, context)
    assert violation is not None


def test_what_is_larger_only_as_it_is_written_anew_is_not_refused() -> None:
    """What no judge looks at is false then, which is longer than true."""
    sent = [
        body(extra_data={"extra_pnginfo": {"workflow": {"notes": notes}}}) for notes in ([True, False], [False, True])
    ]
    assert len(sent[0]) == len(sent[1])
    context = replace(ALICE, policy=policy_of(max_prompt_bytes=len(sent[0])))
    _, violation = both(sent[1], learned(sent[0], context=context), context)
    assert violation is None


def test_what_has_more_parts_than_are_taken_is_refused() -> None:
    known = learned(body(1), body(2))
    _, violation = both(body(3), known, max_parts=20)
    assert violation is not None


@pytest.mark.parametrize("second", [body(2)[:-1], body(2, client_id="d"), body(2).replace(b'"c"', b'"d"')])
def test_what_is_no_workflow_like_the_last_is_read_as_a_whole(second: bytes) -> None:
    known = learned(body(1), second)
    assert not is_known(body(3), known)


def test_nothing_is_known_of_another_tenants() -> None:
    known = learned(body(1), body(2))
    assert not is_known(body(3), known, context_of("bob"))
    assert is_known(body(3), known)


def test_another_policy_or_catalogue_judges_anew() -> None:
    known = learned(body(1), body(2))
    assert not is_known(body(3), known, replace(ALICE, policy=policy_of()))
    assert not is_known(body(3), known, replace(ALICE, catalogue=replace(ALICE.catalogue)))


def test_the_time_is_that_of_each() -> None:
    def dated(seed: int) -> bytes:
        nodes = orjson.loads(body(seed))["prompt"]
        nodes["9"]["inputs"]["filename_prefix"] = "%date:ss%/x"
        return orjson.dumps({"client_id": "c", "prompt": nodes})

    known = learned(dated(1), dated(2))
    for second in (8, 9):
        context = replace(ALICE, now=ALICE.now.replace(second=second))
        steps, _ = both(dated(3), known, context)
        [record] = [step for step in steps if type(step).__name__ == "RecordJob"]
        assert b"/0%d/x" % second in record.body


def test_a_pinned_workflow_is_compared_each_time() -> None:
    document = orjson.loads(body(1))["prompt"]
    policy = policy_of(workflows=[{"file": "w.json", "free": ["3.seed"]}], documents={"w.json": document})
    context = replace(ALICE, policy=policy)
    known = learned(body(1), body(2), body(3), context=context)
    _, violation = both(body(4, "other"), known, context)
    assert violation is not None


def test_beside_the_event_loop_nothing_is_kept() -> None:
    known = RecurringWorkflows()
    for seed in range(4):
        known.prepare(request_of(ALICE, method="POST", raw=body(seed)), ENDLESS)
    assert known.held_bytes == 0


def test_what_is_refused_is_not_kept() -> None:
    known, context = RecurringWorkflows(), replace(ALICE, policy=policy_of(allow=[]))
    for seed in range(3):
        both(body(seed), known, context)
    assert known.held_bytes == 0
    assert not known._shelves


def test_memory_is_bounded_by_tenant_and_in_all() -> None:
    known = RecurringWorkflows(max_bytes=2 * MAX_TENANT_BYTES)
    for tenant in ("alice", "bob", "carol"):
        for number in range(6 * MAX_WORKFLOWS):
            for seed in range(2):
                prepare(known, body(seed, "x" * (40_000 + number)), context_of(tenant))
        shelf = known._shelves[TenantId(tenant)]
        assert len(shelf.known) <= MAX_WORKFLOWS
        assert len(shelf.sent) <= MAX_SENT
        assert shelf.held_bytes <= MAX_TENANT_BYTES
        assert known.held_bytes == sum(each.held_bytes for each in known._shelves.values()) <= 2 * MAX_TENANT_BYTES
    many = RecurringWorkflows(max_bytes=20_000)
    for number in range(200):
        prepare(many, body(), context_of(f"t{number}"))
    assert many.held_bytes <= 20_000
    assert len(many._shelves) < 60


def test_who_never_sends_the_same_is_compared_ever_more_seldom() -> None:
    known, compared = RecurringWorkflows(), 0
    with mock.patch.object(recurring, "make_recurring", wraps=recurring.make_recurring) as make:
        for number in range(4000):
            prepare(known, body(1, **{f"x{number}": 1}))
        compared = make.call_count
    assert compared < 12 * MAX_SENT
    assert known._shelves[ALICE.names.tenant].next_rest == MAX_REST


@pytest.mark.parametrize(("count", "most"), [(10, MAX_SENT), (MAX_COMPARED // 2 - 100, 2), (MAX_COMPARED, 0)])
def test_what_has_many_parts_is_compared_with_few(count: int, most: int) -> None:
    known, each = RecurringWorkflows(), []
    with mock.patch.object(recurring, "make_recurring", wraps=recurring.make_recurring) as make:
        for number in range(10):
            before = make.call_count
            shown: dict[str, Any] = {f"x{number}": [[]] * (count - 1)}
            prepare(known, body(1, extra_data={"extra_pnginfo": {"workflow": shown}}))
            each.append(make.call_count - before)
    assert max(each) == most


def test_who_sends_several_has_all_of_them_known_in_a_while() -> None:
    kinds: list[dict[str, Any]] = [{}, {"front": True}, {"number": 3}]
    known = RecurringWorkflows()
    for seed in range(len(kinds) * REST * 3):
        prepare(known, body(seed, **kinds[seed % len(kinds)]))
    assert all(is_known(body(7, **kind), known, replace(ALICE, policy=OPEN)) for kind in kinds)


def prepare(known: RecurringWorkflows, raw: bytes, context: RuleContext = ALICE, policy: Policy = OPEN) -> None:
    asked = request_of(replace(context, policy=policy), method="POST", raw=raw)
    try:
        known.prepare(asked, Patience(AT_ONCE_EFFORT))
    except Violation:
        pytest.fail("it is refused")

"""Results in another form and within the answer, as rules: what is asked for, and what is told when it does not come."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.functions.conversion import Derived, NotDerived, Recipe
from policy.functions.delivery import Delivery, Kind
from policy.functions.function import CallableFunction
from policy.namespace import Folder
from policy.principal import Scope
from policy.rule_context import RuleInput
from policy.rules import functions as rules
from policy.rules.function_outputs import MAX_INLINE_BYTES, MAX_INLINED_BYTES, MAX_INLINED_FILES
from policy.v2.asset_files import DerivedFile, StoredFile
from policy.v2.assets import Asset
from policy.v2.effects import DeriveOutputs, ReadJob, ReadOutputs, ReadText
from policy.v2.jobs import JobView, Status
from policy.violation import Reason, Violation
from tests.policy.functions.driving import ALICE, GRAPH, PARAMETERS, called, limited, refused, run
from tests.policy.functions.examples import function
from tests.policy.tenants import EVERYTHING, request_of
from tests.policy.v2 import examples
from tests.policy.v2.examples import HASH, JOB, view

SMALL = function(graph=GRAPH, parameters=PARAMETERS, outputs={"result": {"node": "2", "convert": "webp"}})
CONTEXT = replace(ALICE, functions={"wear": CallableFunction(SMALL, EVERYTHING)})
MADE = Derived(5, HASH)


def output(number: int = 200, **more: Any) -> Asset:
    return replace(examples.output(number), **more)


def done(*outputs: Asset, status: Status = Status.SUCCEEDED, **more: Any) -> JobView:
    made = outputs or (output(node_id="2", hash=HASH),)
    return view(status, outputs=made, labels={"function": "wear"}, **{"ended_at_s": 1.0, **more})


def of_job(context: Any = CONTEXT, query: dict[str, str] | None = None, **parameters: str) -> RuleInput:
    return request_of(context, query=query, parameters={"job_id": JOB, **parameters})


def shown(reply: Any) -> Any:
    return (orjson.loads(reply.body) if isinstance(reply.body, bytes) else reply.body)["outputs"]


def test_who_asks_for_the_job_is_told_what_is_given() -> None:
    steps, reply = run(rules.read(of_job()), done(), [MADE])
    read, derive = steps
    assert read == ReadJob(JOB)
    assert isinstance(derive, DeriveOutputs)
    assert derive.is_awaited
    (file,) = derive.files
    assert (file.recipe, file.source.path) == (Recipe("webp", 80), "tenants/alice/out/x_00001_.png")
    assert (file.source.folder, file.source.call.method) == (Folder.OUTPUT, "GET")
    (told,) = shown(reply)
    assert (told["size_bytes"], told["hash"], told["content_type"]) == (5, HASH, "image/webp")


def test_a_job_that_runs_is_not_waited_for() -> None:
    steps, reply = run(rules.read(of_job()), done(status=Status.RUNNING, ended_at_s=None), [NotDerived()])
    assert [step.is_awaited for step in steps if isinstance(step, DeriveOutputs)] == [False]
    assert (shown(reply)[0]["name"], shown(reply)[0]["size_bytes"]) == ("x_00001_.webp", 0)


def test_what_cannot_be_converted_says_why_and_nothing_is_asked() -> None:
    film = output(node_id="2", content_type="video/mp4")
    steps, reply = run(rules.read(of_job()), done(film))
    assert steps == [ReadJob(JOB)]
    assert "is no picture (video/mp4)" in shown(reply)[0]["error"]
    # A name that the tenant cannot have.
    lost = output(node_id="2", path="../x.png")
    steps, reply = run(rules.read(of_job()), done(lost, output(201, node_id="2")), [NotDerived("It is broken.")])
    assert len(steps) == 2
    assert [bool(each["error"]) for each in shown(reply)] == [True, True]
    assert shown(reply)[1]["error"] == "It is broken."


@pytest.mark.parametrize("name", ["result", "2", "x_00001_.png", "x_00001_.webp"])
def test_its_bytes(name: str) -> None:
    _, file = run(rules.output(of_job(name=name)), done())
    assert isinstance(file, DerivedFile)
    assert file.recipe.format == "webp"


def test_the_bytes_of_what_is_no_picture() -> None:
    _, error = refused(rules.output(of_job(name="result")), done(output(node_id="2", content_type="video/mp4")))
    assert isinstance(error, Violation)
    assert error.reason is Reason.CONVERSION_FAILED


def test_who_wants_a_webp_gets_one() -> None:
    delivery = Delivery(Kind.BYTES, 60, ("image/webp",))
    _, found = run(rules.result(of_job(), JOB, delivery), done())
    assert isinstance(found.file, DerivedFile)
    assert found.address == f"/p/gate/jobs/{JOB}/outputs/result"


# Within the answer.


def test_small_files_stand_in_the_answer() -> None:
    plain = replace(CONTEXT, functions={})
    job = done(
        output(1, hash=HASH, size_bytes=3),
        output(2, hash=HASH, size_bytes=4),
        output(3, hash=None, size_bytes=0),
        output(4, hash=HASH, size_bytes=2, folder=None, path="", content_type="text/plain"),
        output(5, hash=HASH, size_bytes=2, path="../another.png"),
        output(6, hash=HASH, size_bytes=1),
    )
    steps, reply = run(rules.read(of_job(plain, {"inline": "3"})), job, b"hi", [b"abc", None])
    read = steps[-1]
    assert isinstance(read, ReadOutputs)
    assert (read.sizes, read.hashes) == ((3, 1), (HASH, HASH))
    assert all(isinstance(each, StoredFile) for each in read.files)
    assert [each["data"] for each in shown(reply)] == [
        base64.b64encode(b"abc").decode(),
        None,
        None,
        base64.b64encode(b"hi").decode(),
        None,
        None,
    ]


def test_what_was_converted_is_inlined_as_it_is_given() -> None:
    steps, reply = run(rules.read(of_job(query={"inline": "5"})), done(), [MADE], [b"12345"])
    assert isinstance(steps[-1], ReadOutputs)
    assert isinstance(steps[-1].files[0], DerivedFile)
    assert shown(reply)[0]["data"] == base64.b64encode(b"12345").decode()
    assert reply.content_type == "application/json"


def test_an_answer_holds_so_much_and_no_more() -> None:
    plain = replace(CONTEXT, functions={})
    outputs = [output(number, hash=HASH, size_bytes=MAX_INLINE_BYTES) for number in range(10)]
    query = {"inline": str(MAX_INLINE_BYTES)}
    steps, reply = run(rules.read(of_job(plain, query)), done(*outputs), [None] * 8)
    assert isinstance(steps[-1], ReadOutputs)
    assert sum(steps[-1].sizes) == MAX_INLINED_BYTES
    assert [each["data"] for each in shown(reply)] == [None] * 10


def test_an_answer_has_so_many_files_however_small() -> None:
    plain = replace(CONTEXT, functions={})
    text = output(0, hash=HASH, size_bytes=2, folder=None, path="", content_type="text/plain")
    outputs = [text, *(output(number, hash=HASH, size_bytes=1) for number in range(1, MAX_INLINED_FILES + 9))]
    steps, _ = run(rules.read(of_job(plain, {"inline": "9"})), done(*outputs), b"hi", [None] * (MAX_INLINED_FILES - 1))
    assert isinstance(steps[-1], ReadOutputs)
    assert len(steps[-1].files) == MAX_INLINED_FILES - 1


def test_without_small_files_nothing_is_read() -> None:
    steps, reply = run(rules.read(of_job(replace(CONTEXT, functions={}), {"inline": "1"})), done())
    assert steps == [ReadJob(JOB)]
    assert shown(reply)[0]["data"] is None
    steps, reply = run(rules.read(of_job(replace(CONTEXT, functions={}), {"inline": "0"})), done())
    assert "data" not in shown(reply)[0]


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5", "²", str(MAX_INLINE_BYTES + 1), "9" * 20])
def test_how_many_bytes_is_a_number_within_its_bound(text: str) -> None:
    for rule in (rules.read, rules.cancel):
        steps, error = refused(rule(of_job(query={"inline": text})))
        assert (steps, error.reason) == ([], Reason.QUERY_MALFORMED)
    asked = called()
    asked = replace(asked, call=replace(asked.call, query=(("inline", text),)))
    with pytest.raises(Violation, match="inline"):
        rules.check_call(asked, Delivery())


def test_who_may_not_read_files_gets_none_in_the_answer() -> None:
    narrow = limited(Scope.JOBS_READ, Scope.JOBS_SUBMIT)
    _, error = refused(rules.read(of_job(narrow, {"inline": "9"})))
    assert (error.reason, error.details) == (Reason.SCOPE_MISSING, Scope.FILES_READ)


def test_the_text_of_a_node_is_given_as_it_is() -> None:
    plain = replace(CONTEXT, functions={})
    text = output(4, hash=HASH, size_bytes=2, folder=None, path="", content_type="text/plain")
    steps, _ = run(rules.read(of_job(plain, {"inline": "9"})), done(text), b"hi")
    assert steps[-1] == ReadText(text.asset_id)
    # It is gone meanwhile.
    _, reply = run(rules.read(of_job(plain, {"inline": "9"})), done(text), None)
    assert shown(reply)[0]["data"] is None

"""Calls of functions, step by step: what each asks for, what it answers, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.call import UploadBody, UpstreamReply
from policy.functions.delivery import Delivery, Kind
from policy.functions.function import CallableFunction
from policy.keyform import presented
from policy.principal import ALL_SCOPES, Scope
from policy.rules import functions as rules
from policy.rules.function_files import MAX_FORM_TEXT_BYTES, Given, NotStored, discard
from policy.v2.asset_uploads import AssetUploadPlan
from policy.v2.effects import (
    AddAsset,
    DeleteAsset,
    FinishUpload,
    FormFile,
    FormText,
    ReadPart,
    ReuseBytes,
    Reused,
    SkipFile,
)
from policy.violation import Reason, Violation
from tests.policy.functions.driving import (
    ALICE,
    ASSET,
    ASSET_ID,
    GRAPH,
    NEW,
    PARAMETERS,
    RECEIVED,
    STORED,
    URL,
    called,
    form,
    limited,
    refused,
    run,
)
from tests.policy.functions.examples import function
from tests.policy.tenants import EVERYTHING, caller_of, refusal
from tests.policy.v2.examples import HASH

# What there is.


def test_functions_are_listed_for_who_may_call_them() -> None:
    _, reply = run(rules.list_functions(called()))
    assert [each["name"] for each in reply.body["functions"]] == ["wear", "dice"]
    _, reply = run(rules.describe(called()))
    assert (reply.body["url"], reply.body["outputs"]) == ("/p/gate/run/wear", ["result"])
    assert run(rules.list_functions(called(context=caller_of())))[1].body == {"functions": []}


@pytest.mark.parametrize("rule", [rules.describe, rules.gather, lambda asked: rules.check_call(asked, Delivery())])
def test_a_function_that_one_may_not_call_is_none(rule: Any) -> None:
    def steps() -> Any:
        found = rule(called(name="secret"))
        return (yield from found) if found is not None else None

    _, error = refused(steps())
    assert error.reason is Reason.NOT_FOUND


@pytest.mark.parametrize(
    ("delivery", "scopes", "missing"),
    [
        (Delivery(), {Scope.JOBS_SUBMIT}, None),
        (Delivery(wait_s=1), {Scope.JOBS_SUBMIT}, Scope.JOBS_READ),
        (Delivery(Kind.EVENTS), {Scope.JOBS_SUBMIT}, Scope.JOBS_READ),
        (Delivery(Kind.BYTES), {Scope.JOBS_SUBMIT, Scope.JOBS_READ}, Scope.FILES_READ),
        (Delivery(Kind.BYTES), ALL_SCOPES, None),
    ],
)
def test_who_waits_may_read(delivery: Delivery, scopes: set[Scope], missing: Scope | None) -> None:
    asked = called(context=limited(*scopes))
    if missing is None:
        rules.check_call(asked, delivery)
        return
    with pytest.raises(Violation) as error:
        rules.check_call(asked, delivery)
    assert (error.value.reason, error.value.details) == (Reason.SCOPE_MISSING, missing)


# What a call gives.


def test_arguments_of_json() -> None:
    raw = orjson.dumps({"picture": ASSET.asset_id, "prefix": None})
    _, given = run(rules.gather(called(raw)))
    assert given == Given({"picture": ASSET.asset_id}, raw)
    assert run(rules.gather(called(name="dice")))[1] == Given({}, b"")


def test_a_data_url_becomes_an_asset() -> None:
    raw = orjson.dumps({"picture": URL})
    steps, given = run(rules.gather(called(raw)), RECEIVED, None, STORED, NEW)
    receive, reuse, finish, add = steps
    assert (receive.filename, receive.data) == ("picture.png", b"abc")
    plan = receive.call.body.plan
    assert isinstance(receive.call.body, UploadBody)
    assert isinstance(plan, AssetUploadPlan)
    assert plan.folder == add.asset.asset_id == ASSET_ID
    assert isinstance(reuse, ReuseBytes)
    assert isinstance(finish, FinishUpload)
    assert isinstance(add, AddAsset)
    assert given == Given({"picture": ASSET_ID}, raw, (ASSET_ID,))


def test_bytes_that_are_there_are_named_and_not_taken_back_later() -> None:
    raw = orjson.dumps({"picture": URL})
    _, given = run(rules.gather(called(raw)), RECEIVED, Reused(ASSET, False))
    assert (given.arguments, given.made) == ({"picture": ASSET.asset_id}, ())
    _, given = run(rules.gather(called(raw)), RECEIVED, Reused(NEW, True))
    assert given.made == (ASSET_ID,)


def test_arguments_of_a_form() -> None:
    parts = [FormText("prefix", "me"), FormFile("picture", "a.png"), RECEIVED, None, STORED, NEW, None]
    steps, given = run(rules.gather(form()), *parts)
    assert steps[0] == ReadPart(MAX_FORM_TEXT_BYTES)
    assert steps[1] == ReadPart(MAX_FORM_TEXT_BYTES - 2)
    assert (steps[2].filename, steps[2].data) == ("a.png", None)
    assert (given.arguments, given.made) == ({"prefix": "me", "picture": ASSET_ID}, (ASSET_ID,))
    assert orjson.loads(given.mark) == [["picture", [ASSET.file_path, HASH]], ["prefix", "me"]]


def test_a_file_of_a_form_may_be_named_by_its_id() -> None:
    _, given = run(rules.gather(form()), FormText("picture", ASSET.asset_id), None)
    assert given.arguments == {"picture": ASSET.asset_id}


def test_a_field_in_which_nobody_chose_a_file_is_none() -> None:
    parameters = {"picture": PARAMETERS["picture"] | {"optional": True}}
    optional = {"wear": CallableFunction(function(graph=GRAPH, parameters=parameters), EVERYTHING)}
    context = replace(ALICE, functions=optional)
    steps, given = run(
        rules.gather(form(context=context)), FormFile("picture", ""), False, FormText("picture", ""), None
    )
    assert isinstance(steps[1], SkipFile)
    assert (given.arguments, given.mark) == ({}, b"[]")


FILE = (FormFile("picture", "a.png"), RECEIVED, None, STORED, NEW)
REFUSED_PARTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "unknown": ((*FILE, FormText("nothing", "x"), True), "there are picture, prefix"),
    "twice": ((*FILE, FormFile("picture", "b.png"), True), "it was given twice"),
    "no file": ((*FILE, FormFile("prefix", "b.png"), True), "it is no file"),
    "a file without a name": ((FormFile("picture", ""), True), "the file has no name"),
    "missing": ((FormText("prefix", "x"), None), "it must be given"),
    "too long": ((*FILE, FormText("prefix", "x" * 100_001), None, True), "at most 100000 characters"),
    "an empty form": ((None,), "it must be given"),
}


@pytest.mark.parametrize(("answers", "rule"), REFUSED_PARTS.values(), ids=REFUSED_PARTS)
def test_a_form_that_is_refused_leaves_nothing(answers: tuple[Any, ...], rule: str) -> None:
    steps, error = refused(rules.gather(form()), *answers)
    assert error.reason is Reason.ARGUMENT_REFUSED
    assert rule in error.message
    made = any(isinstance(step, AddAsset) for step in steps)
    assert ([step for step in steps if isinstance(step, DeleteAsset)] == [DeleteAsset(ASSET_ID)]) is made


def test_a_function_without_parameters_says_so() -> None:
    bare = {"wear": CallableFunction(function(graph=GRAPH, parameters={}), EVERYTHING)}
    _, error = refused(rules.gather(form(context=replace(ALICE, functions=bare))), FormText("x", ""))
    assert "none at all" in error.message


def test_what_breaks_in_the_middle_leaves_nothing_either() -> None:
    """And whatever goes wrong when it is taken back, the client hears of what went wrong first."""
    for answer in (True, RuntimeError("the database is away")):
        steps, error = refused(rules.gather(form()), *FILE, RuntimeError("the client has gone"), answer)
        assert steps[-1] == DeleteAsset(ASSET_ID)
        assert str(error) == "the client has gone"


@pytest.mark.parametrize("answers", [(UpstreamReply(413, None),), (RECEIVED, None, UpstreamReply(413, None))])
def test_what_comfyui_does_not_take(answers: tuple[Any, ...]) -> None:
    _, error = refused(rules.gather(called(orjson.dumps({"picture": URL}))), *answers)
    assert isinstance(error, NotStored)
    with pytest.raises(Violation) as too_large:
        rules.not_stored(error)
    assert too_large.value.reason is Reason.BODY_TOO_LARGE
    reply = rules.not_stored(NotStored(500))
    assert (reply.status, reply.body["error"]["type"]) == (502, "upstream_unavailable")


@pytest.mark.parametrize("body", [[], "x", 3])
def test_arguments_are_an_object(body: Any) -> None:
    _, error = refused(rules.gather(called(orjson.dumps(body))))
    assert error.reason is Reason.BODY_MALFORMED


@pytest.mark.parametrize("given", [1, "", [], {}, "\0", "x" * 65, "\u00e9"])
def test_a_file_is_an_id_or_a_data_url(given: Any) -> None:
    _, error = refused(rules.gather(called(orjson.dumps({"picture": given}))))
    assert error.reason is Reason.ARGUMENT_REFUSED


def test_who_sends_a_file_may_write_files() -> None:
    asked = called(orjson.dumps({"picture": URL}), context=limited(Scope.JOBS_SUBMIT))
    _, error = refused(rules.gather(asked))
    assert (error.reason, error.details) == (Reason.SCOPE_MISSING, Scope.FILES_WRITE)


def test_a_key_of_the_gate_is_no_argument() -> None:
    credentials = presented(["a-secret-of-mine-that-is-long"])
    secret = "a-secret-of-mine-that-is-long"
    for asked, parts in (
        (called(orjson.dumps({"picture": secret})), ()),
        (form(), (FormText("prefix", secret),)),
        (form(), (FormFile("picture", f"{secret}.png"),)),
    ):
        _, error = refused(rules.gather(replace(asked, credentials=credentials)), *parts)
        assert error.reason is Reason.CREDENTIAL_MISPLACED


def test_what_came_to_nothing_is_taken_back() -> None:
    in_use = Violation(Reason.ASSET_IN_USE, "x")
    steps, _ = run(discard(("a", "b", "c")), in_use, RuntimeError(), True)
    assert steps == [DeleteAsset("a"), DeleteAsset("b"), DeleteAsset("c")]


def test_which_calls_may_give_files() -> None:
    assert rules.takes_files(called())
    assert not rules.takes_files(called(name="dice"))
    assert rules.takes_files(form(name="dice")), "a page's form may hold some, which are refused"
    assert refusal(rules.takes_files, called(name="nothing")).reason is Reason.NOT_FOUND

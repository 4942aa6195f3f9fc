"""Calls with addresses: nobody outside is asked before all else was judged, and nothing stays of what came to nothing."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import orjson
import pytest

from policy.addresses import HostPattern
from policy.call import CheckRoom, UpstreamReply
from policy.functions.fetches import Failure, FetchFailed
from policy.functions.function import CallableFunction
from policy.principal import Scope
from policy.rules import functions as rules
from policy.rules.function_files import Given, NotStored
from policy.v2.effects import AddAsset, DeleteAsset, FetchFile, FindAssets, FinishUpload, FormText, ReuseBytes
from policy.violation import Reason, Violation
from tests.policy.functions.driving import ALICE as NOBODYS
from tests.policy.functions.driving import (
    ASSET,
    ASSET_ID,
    GRAPH,
    MINTED,
    NEW,
    NOTHING,
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
from tests.policy.tenants import EVERYTHING

AT = "https://images.example.com/a.png?token=x"
HOSTS = (HostPattern("images.example.com"), HostPattern("*.example.org"))
TWO: dict[str, Any] = {
    "1": GRAPH["1"],
    "2": {"class_type": "LoadImage", "inputs": {"image": "own.png"}},
    "3": {"class_type": "EmptyImage", "inputs": {"width": 1}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
}
PAIR = function(
    "pair",
    TWO,
    parameters={
        "picture": {"type": "image", "fills": ["1.image"]},
        "mask": {"type": "mask", "fills": ["2.image"], "optional": True},
        "seed": {"type": "seed", "fills": ["3.width"], "min": 3},
    },
    outputs={},
)
ALICE = replace(
    NOBODYS,
    fetches=HOSTS,
    functions={**NOBODYS.functions, "pair": CallableFunction(PAIR, EVERYTHING)},
)  # fmt: skip


def asking(arguments: dict[str, Any], name: str = "wear", **more: Any) -> Any:
    return called(orjson.dumps(arguments), name, **{"context": ALICE, **more})


def gathered(arguments: dict[str, Any], name: str = "wear", *answers: Any) -> Given:
    asked, given = run(rules.gather(asking(arguments, name)), *answers)
    assert not any(isinstance(step, FetchFile) for step in asked)
    found: Given = given
    return found


def test_what_is_gathered_has_addresses_apart_and_asks_nobody() -> None:
    given = gathered({"picture": AT, "prefix": "x"})
    assert (given.arguments, given.made) == ({"prefix": "x"}, ())
    assert given.addresses["picture"].url == AT
    assert given.mark == orjson.dumps({"picture": AT, "prefix": "x"})


def test_a_form_may_have_them_too() -> None:
    steps = rules.gather(form(context=ALICE))
    _, given = run(steps, FormText("picture", AT), None)
    assert given.addresses["picture"].host == "images.example.com"
    assert AT.encode() in given.mark


def test_what_is_fetched_becomes_an_asset_after_all_else_was_judged() -> None:
    given = gathered({"picture": AT})
    asked, whole = run(rules.fetch(asking({}), given), None, RECEIVED, None, STORED, NEW)
    assert [type(step) for step in asked] == [CheckRoom, FetchFile, ReuseBytes, FinishUpload, AddAsset]
    assert (asked[1].address, asked[1].hosts) == (given.addresses["picture"], HOSTS)
    assert asked[1].call.body.plan.folder == ASSET_ID
    assert asked[1].name(b"\x89PNG\r\n\x1a\n") == "picture.png"
    assert (whole.arguments, whole.made, whole.addresses) == ({"picture": ASSET_ID}, (ASSET_ID,), {})
    assert whole.mark == given.mark


def test_without_addresses_nothing_is_asked() -> None:
    given = Given({"prefix": "x"}, b"")
    assert run(rules.fetch(asking({}), given)) == ([], given)


@pytest.mark.parametrize(
    ("context", "at", "rule"),
    [
        (NOBODYS, AT, "no addresses are fetched for you"),
        (NOBODYS, "http://images.example.com/", "no addresses are fetched for you"),
        (ALICE, "http://images.example.com/", "write an address as https"),
        (ALICE, "https://elsewhere.test/", "not among those that you may name: images.example.com, *.example.org"),
        (ALICE, "https://images.example.com:8443/", "not among those"),
        (ALICE, "https://user@images.example.com/", "without a user name"),
        (ALICE, "https://127.0.0.1/", "and not its number"),
    ],
)
def test_what_may_not_be_named(context: Any, at: str, rule: str) -> None:
    asked, error = refused(rules.gather(asking({"picture": at}, context=context)))
    assert not asked
    assert (error.reason, error.details) == (Reason.ARGUMENT_REFUSED, "picture")
    assert rule in error.message


def test_an_address_in_any_other_parameter_is_a_text() -> None:
    given = gathered({"picture": AT, "prefix": "https://elsewhere.test/x"})
    assert given.arguments == {"prefix": "https://elsewhere.test/x"}


def test_a_wrong_address_is_told_before_a_file_is_stored() -> None:
    asked, error = refused(rules.gather(asking({"picture": URL, "mask": "https://elsewhere.test/"}, "pair")))
    assert (asked, error.details) == ([], "mask")


def test_who_may_not_write_files_has_none_fetched() -> None:
    narrow = replace(limited(Scope.JOBS_SUBMIT), fetches=HOSTS)
    asked, error = refused(rules.gather(asking({"picture": AT}, context=narrow)))
    assert (asked, error.reason) == ([], Reason.SCOPE_MISSING)


def test_a_workflow_that_is_not_permitted_asks_nobody() -> None:
    functions = {"wear": replace(NOBODYS.functions["wear"], policy=NOTHING)}
    given = gathered({"picture": AT})
    asked, error = refused(rules.fetch(asking({}, context=replace(ALICE, functions=functions)), given))
    assert (asked, error.reason) == ([], Reason.POLICY_VIOLATION)


def test_without_room_for_a_job_nobody_is_asked() -> None:
    full = RuntimeError("no slot")
    asked, error = refused(rules.fetch(asking({}), gathered({"picture": AT})), full)
    assert ([type(step) for step in asked], error) == ([CheckRoom], full)


def test_an_asset_that_is_none_is_told_before_anybody_is_asked() -> None:
    given = gathered({"picture": AT, "mask": ASSET.asset_id}, "pair")
    asked, error = refused(rules.fetch(asking({}, "pair"), given), {})
    assert ([type(step) for step in asked], error.details) == ([FindAssets], "mask")


def test_of_two_the_first_goes_when_the_second_cannot_be_fetched() -> None:
    given = gathered({"picture": AT, "mask": "https://a.example.org/"}, "pair")
    failed = FetchFailed(Failure.UNREACHABLE, note="10.0.0.1 is not a public address")
    asked, error = refused(rules.fetch(asking({}, "pair"), given), None, RECEIVED, None, STORED, NEW, failed, True)
    assert [type(step) for step in asked][-2:] == [FetchFile, DeleteAsset]
    assert asked[-2].call.body.plan.folder == str(uuid.uuid5(uuid.UUID(MINTED), "mask"))
    assert asked[-1] == DeleteAsset(ASSET_ID)
    assert (error.reason, error.details) == (Reason.ARGUMENT_REFUSED, "mask")
    assert "10.0.0.1" not in error.message


def test_a_file_that_comfyui_does_not_take() -> None:
    _, error = refused(rules.fetch(asking({}), gathered({"picture": AT})), None, UpstreamReply(413, None))
    assert isinstance(error, NotStored)
    assert error.status == 413


def test_what_was_stored_before_stays_until_the_call_has_come_to_nothing() -> None:
    given = replace(gathered({"picture": AT}), made=("before",))
    asked, error = refused(rules.fetch(asking({}), given), None, Violation(Reason.STORAGE_FULL, "x"))
    assert not any(isinstance(step, DeleteAsset) for step in asked)
    assert error.reason is Reason.STORAGE_FULL


def test_the_address_that_is_told_of_the_job_is_a_part_of_the_call() -> None:
    _, plain = run(rules.gather(asking({"picture": AT})))
    _, told = run(rules.gather(asking({"picture": AT}), "https://hooks.example.com/"))
    assert (plain.webhook, told.webhook) == ("", "https://hooks.example.com/")
    assert plain.mark != told.mark

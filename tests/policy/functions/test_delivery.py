"""How a client hears of its job: by Accept, Prefer and the query."""

from __future__ import annotations

import pytest

from policy.addresses import HostPattern
from policy.call import ClientCall
from policy.functions.delivery import (
    MAX_WAIT_S,
    MAX_WEBHOOK_CHARACTERS,
    WAIT_FOR_BYTES_S,
    Delivery,
    Kind,
    fits,
    read_delivery,
    read_webhook,
)
from policy.violation import Reason, Violation


def read(accept: str = "", prefer: str = "", query: tuple[tuple[str, str], ...] = ()) -> Delivery:
    return read_delivery(ClientCall("POST", ("gate", "run", "x"), query), [accept], [prefer])


@pytest.mark.parametrize(
    ("accept", "kind", "ranges"),
    [
        ("", Kind.JOB, ()),
        ("*/*", Kind.JOB, ()),
        ("application/json", Kind.JOB, ()),
        ("text/html, application/xml", Kind.JOB, ()),
        ("nonsense, image", Kind.JOB, ()),
        ("text/event-stream", Kind.EVENTS, ()),
        ("image/png", Kind.BYTES, ("image/png",)),
        ("IMAGE/PNG, */*", Kind.BYTES, ("image/png",)),
        ("*/*, image/png", Kind.JOB, ()),
        ("*/*;q=0.1, image/png;q=0.5, video/*", Kind.BYTES, ("video/*", "image/png")),
        ("application/json;q=0.9, image/*;q=0.8", Kind.JOB, ()),
        ("application/json;q=0.5, image/webp;level=1;q=0.800", Kind.BYTES, ("image/webp",)),
        ("image/png;q=0, application/json;q=0.1", Kind.JOB, ()),
        ("image/png;q=0", Kind.JOB, ()),
        ("application/octet-stream", Kind.BYTES, ("application/octet-stream",)),
        ("text/plain", Kind.BYTES, ("text/plain",)),
    ],
)
def test_accept(accept: str, kind: Kind, ranges: tuple[str, ...]) -> None:
    found = read(accept)
    assert (found.kind, found.ranges) == (kind, ranges)
    assert found.wait_s == (WAIT_FOR_BYTES_S if kind is Kind.BYTES else 0)
    assert not found.is_waited_for


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("wait=60", 60),
        ("respond-async, Wait = 10", 10),
        ('wait="5"', 5),
        ("wait=5;foo=bar", 5),
        ("wait=0", 0),
        ("wait=1, wait=60", 1),
        ("wait=99999", MAX_WAIT_S),
    ],
)
def test_prefer(prefer: str, wait_s: int) -> None:
    assert read("", prefer) == Delivery(Kind.JOB, wait_s, (), True)
    assert read("image/*", prefer) == Delivery(Kind.BYTES, wait_s, ("image/*",), True)
    assert read("text/event-stream", prefer) == Delivery(Kind.EVENTS)


@pytest.mark.parametrize("prefer", ["", "wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "waiting=5", "wait=12345678"])
def test_what_is_not_understood_is_passed_over(prefer: str) -> None:
    assert read("", prefer) == Delivery()


def test_what_becomes_of_a_job_whose_client_leaves() -> None:
    assert read(query=(("on_disconnect", "cancel"),)).ends_with_client
    assert read("text/event-stream", query=(("on_disconnect", "cancel"),)).ends_with_client
    assert not read(query=(("on_disconnect", "continue"),)).ends_with_client
    with pytest.raises(Violation) as refused:
        read(query=(("on_disconnect", "x"),))
    assert refused.value.reason is Reason.QUERY_MALFORMED


@pytest.mark.parametrize(
    ("content_type", "ranges", "is_fit"),
    [
        ("image/png", ("image/png",), True),
        ("image/png", ("image/*",), True),
        ("image/png", ("video/*", "application/octet-stream"), True),
        ("image/png", ("image/webp",), False),
        ("text/plain; charset=utf-8", ("text/plain",), True),
        ("imagery/png", ("image/*",), False),
        ("image/png", (), False),
    ],
)
def test_fits(content_type: str, ranges: tuple[str, ...], is_fit: bool) -> None:
    assert fits(content_type, ranges) is is_fit


HOSTS = (HostPattern("hooks.example.com"),)


def test_an_address_that_is_told_of_the_job() -> None:
    assert read_webhook((), HOSTS) == read_webhook((), ()) == ""
    assert read_webhook([" https://HOOKS.example.com/a?b=c "], HOSTS) == "https://hooks.example.com/a?b=c"


@pytest.mark.parametrize(
    ("lines", "hosts", "rule"),
    [
        (["https://hooks.example.com/"], (), "the operator permits hosts with `call_webhooks`"),
        (["https://elsewhere.test/"], HOSTS, "not among those that you may name: hooks.example.com"),
        (["http://hooks.example.com/"], HOSTS, "write an address as https"),
        (["https://a@hooks.example.com/"], HOSTS, "without a user name"),
        ([""], HOSTS, "write an address as https"),
        (["https://hooks.example.com/", "https://hooks.example.com/"], HOSTS, "send one address"),
        (["https://hooks.example.com/" + "x" * MAX_WEBHOOK_CHARACTERS], HOSTS, "of at most 2000 characters"),
    ],
)
def test_an_address_that_is_not_told(lines: list[str], hosts: tuple[HostPattern, ...], rule: str) -> None:
    with pytest.raises(Violation, match=rule) as refused:
        read_webhook(lines, hosts)
    assert (refused.value.reason, refused.value.details) == (Reason.HEADER_MALFORMED, "Webhook-URL")

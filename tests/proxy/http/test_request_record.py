"""What is taken from a request for the record: bounded words, and nothing that looks like a secret."""

from __future__ import annotations

import pytest

from proxy.auth.api_keys import generate_key
from proxy.http.request_record import UNLISTED, RequestRecord
from tests.proxy.http.requests import made_request


def begun(method: str = "GET", **headers: str) -> RequestRecord:
    return RequestRecord.begin(made_request(method, "/secret?token=x", **headers), "192.0.2.1")


def test_begins_with_nothing_known() -> None:
    record = begun()
    assert (record.route, record.principal, record.status) == (UNLISTED, None, 0)
    assert record.client == "192.0.2.1"
    assert len(record.request_id) == 16
    assert record.request_id != begun().request_id
    assert "secret" not in repr(record)


@pytest.mark.parametrize("sent", ["a", "0f8f-a_b.c", "x" * 64])
def test_takes_a_clients_request_id(sent: str) -> None:
    assert begun(X_Request_Id=sent).request_id == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a\x1b[31m", "é", '"', "a,b"])
def test_makes_its_own_where_that_is_no_id(sent: str) -> None:
    assert begun(X_Request_Id=sent).request_id != sent


def test_a_key_sent_as_request_id_stays_out() -> None:
    _, key = generate_key()
    assert begun(X_Request_Id=key).request_id != key


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("230b030023ae2822-SJC", "230b030023ae2822-SJC"),
        ("230b030023ae2822", "230b030023ae2822"),
        ("nonsense", ""),
        ("230b030023ae2822-SJC\x1b", ""),
        ("", ""),
    ],
)
def test_takes_a_ray_that_is_one(sent: str, kept: str) -> None:
    assert begun(Cf_Ray=sent).cf_ray == kept


@pytest.mark.parametrize(
    ("method", "label"), [("HEAD", "HEAD"), ("PATCH", "PATCH"), ("TRACE", "OTHER"), ("X", "OTHER")]
)
def test_methods_are_a_fixed_set_of_labels(method: str, label: str) -> None:
    assert begun(method).method == label

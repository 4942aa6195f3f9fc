"""Small forms of pages: read in one way only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.forms import read_form, write_form
from policy.violation import Reason
from tests.policy.tenants import is_refused


def multipart(*fields: tuple[str, str], boundary: str = "----x") -> bytes:
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    )
    return ("".join(parts) + f"--{boundary}--\r\n").encode()


FORMS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=20),
    min_size=1,
    max_size=8,
)


@given(FORMS)
def test_what_is_written_is_read(form: dict[str, str]) -> None:
    assert read_form(write_form(form)) == form
    assert read_form(multipart(*form.items(), boundary="=_5b1f-boundary")) == form


def test_other_headers_of_a_part_mean_nothing() -> None:
    body = b'--x\r\nContent-Type: text/plain\r\ncontent-disposition:form-data;name="id"\r\n\r\n7\r\n--x--'
    assert read_form(body) == {"id": "7"}


@pytest.mark.parametrize(
    "body",
    [
        b"a",
        b"a=%ff",
        "a=é".encode(),
        b"a=1&a=2",
        b"&".join(b"f%d=1" % index for index in range(17)),
        multipart(("a", "1"), ("a", "2")),
        multipart(("a", "1"))[:-6],
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n1\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\n1\r\n--x--\r\n',
        b"--x\r\nContent-Type: text/plain\r\n\r\n1\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n--x--\r\n',
        b"--x\r\n\r\n--xy\r\n\r\n--x--\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    assert is_refused(read_form, body, reason=Reason.BODY_MALFORMED)

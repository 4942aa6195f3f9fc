"""The head of a part of an upload is read as ComfyUI's library reads it."""

from __future__ import annotations

import warnings

import pytest
from aiohttp.multipart import content_disposition_filename, parse_content_disposition
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.content_disposition import filename_of, read_disposition, read_raw_filename

Read = tuple[str, dict[str, str], str | None]


def by_the_gate(text: str) -> Read | None:
    try:
        kind, parameters = read_disposition(text)
    except ValueError:
        return None
    return kind, parameters, filename_of(parameters)


def by_the_library(text: str) -> Read | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind, parameters = parse_content_disposition(text)
        return None if kind is None else (kind, dict(parameters), content_disposition_filename(parameters, "filename"))


PIECES = [
    "form-data",
    "attachment",
    ";",
    "; ",
    " ;",
    "=",
    " = ",
    "name",
    "Name",
    "filename",
    "filename*",
    "filename*0",
    "filename*1",
    "filename*0*",
    "filename*1*",
    "filename*01",
    "filename**",
    "x*y",
    '"',
    '""',
    '"a.png"',
    '"a;b.png"',
    '"a\\"b"',
    "\\",
    "/",
    "a",
    "é",
    " ",
    "\t",
    "(",
    "%20",
    "%ff",
    "0",
    "UTF-8''a%20b.png",
    "utf-8'en'%C3%A9",
    "''x",
    "latin-1''%e9",
    "none''x",
    "utf-8''%ff",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example('form-data; name="image"; filename="a;b.png"')
@example('form-data; name="image"; filename="a;b;c.png"')
@example("form-data; name=image; filename*=UTF-8''a%22b.txt; filename=c.png")
@example('form-data; name="image"; filename*0="a"; filename*1=b; filename*3=c')
@example("form-data; name=image; filename*0*=UTF-8''a%20; filename*1*=b.png")
@example('form-data; name="/\\\\//image";')
def test_any_text_is_read_alike(text: str) -> None:
    assert by_the_gate(text) == by_the_library(text)


VALUE = st.sampled_from(['"a.png"', "a.png", '"a b"', '"a;b"', '"\\"q\\""', "UTF-8''x%20y", '"é"', "a b", '"', ""])
NAME = st.sampled_from(
    ["name", "filename", "filename*", "filename*0", "filename*0*", "filename*1", "FileName", "x", "na me"]
)


@given(
    st.lists(st.tuples(NAME, st.sampled_from(["=", " = "]), VALUE, st.sampled_from(["", " "])).map("".join), max_size=4)
)
def test_any_parameters_are_read_alike(parameters: list[str]) -> None:
    text = "; ".join(["form-data", *parameters])
    assert by_the_gate(text) == by_the_library(text)


@pytest.mark.parametrize(
    ("text", "filename"),
    [
        ('form-data; name="image"; filename="a.png"', "a.png"),
        ('form-data; name="image"; filename="a;b.png"', "a;b.png"),
        ('form-data; name="image"; filename="a.png"; filename*=UTF-8\'\'%E2%82%AC.png', "€.png"),
        ('form-data; name="image"; filename*0="long-"; filename*1="name.png"', "long-name.png"),
        ('form-data; name="image"', None),
    ],
)
def test_the_name_of_a_file(text: str, filename: str | None) -> None:
    kind, parameters = read_disposition(text)
    assert (kind, parameters["name"], filename_of(parameters)) == ("form-data", "image", filename)


@pytest.mark.parametrize(
    "text", ["", ";", '"form-data"; name=a', "form-data; name", "form-data; name=a; name=b", "form-data; name=a b"]
)
def test_what_can_be_read_in_two_ways_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"kind|parameter"):
        read_disposition(text)


@pytest.mark.parametrize("name", ['a"b.png', "a;b;c.png", '"; x="y', "", "ü.png", 'a"; filename="b.png', "a\\b"])
def test_a_name_of_the_sdk_is_read_raw(name: str) -> None:
    assert read_raw_filename(f'form-data; name="file"; filename="{name}"') == name


@pytest.mark.parametrize(
    "text",
    [
        'form-data; name="image"; filename="x;y;z.png"',
        'form-data; name="file"',
        'form-data; filename="x.png"; name="file"',
        'form-data;name="file"; filename="x.png"',
        'form-data; name="file"; filename="x.png"; more=1',
        'form-data; name="file"; filename=x.png',
    ],
)
def test_no_other_spelling_is(text: str) -> None:
    assert read_raw_filename(text) is None

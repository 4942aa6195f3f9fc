"""Names of copies, and which originals may go."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.copies import (
    MAX_NAME,
    disposition_of,
    file_copy_id,
    form_copy_id,
    job_copy_id,
    keeps_count,
    object_key,
    plain_name,
)
from policy.principal import TenantId

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
JOB = "0b8f6f0e-7d0c-4b5e-9d0b-3f2a4c1d5e6f"
COPY = "0" * 32
_KEY = re.compile(r"alice/[A-Za-z0-9-]+/[0-9a-f]{32}/[A-Za-z0-9_-][A-Za-z0-9._-]*")


@given(st.text(), st.text())
def test_no_name_leaves_its_place(prompt_id: str, name: str) -> None:
    key = object_key(ALICE, prompt_id, COPY, name)
    assert _KEY.fullmatch(key) or plain_name(name).startswith("."), key
    assert not {".", "..", ""} & set(key.split("/"))
    assert len(key.split("/")) == 4
    assert len(plain_name(name)) <= MAX_NAME


def test_a_key_names_tenant_job_copy_and_file() -> None:
    assert object_key(ALICE, JOB, COPY, "../a b.png") == f"alice/{JOB}/{COPY}/a_b.png"
    elsewhere = object_key(ALICE, "../mallory", COPY, "a.png").split("/")
    assert (elsewhere[0], len(elsewhere), ".." in elsewhere) == ("alice", 4, False)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("picture_00001_.png", "picture_00001_.png"),
        ("sub/folder/a b.png", "a_b.png"),
        ("../../mallory/x.png", "x.png"),
        ("日本.webp", "_.webp"),
        ("", "file"),
        ("..", "file"),
        (".hidden", "hidden"),
        ("no-suffix", "no-suffix"),
        ("a" * 300 + ".png", "a" * (MAX_NAME - 4) + ".png"),
        ("a." + "b" * 300, "a." + "b" * 16),
        ("a" * 300, "a" * MAX_NAME),
    ],
)
def test_a_name_is_made_plain(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_each_end_of_each_job_has_copies_of_its_own() -> None:
    first = job_copy_id(ALICE, JOB, 1, 2.5)
    assert first == job_copy_id(ALICE, JOB, 1, 2.5)
    others = {
        job_copy_id(MALLORY, JOB, 1, 2.5),
        job_copy_id(ALICE, COPY, 1, 2.5),
        job_copy_id(ALICE, JOB, 2, 2.5),
        job_copy_id(ALICE, JOB, 1, 3.5),
        file_copy_id(first, "an-asset"),
        file_copy_id(first, "another"),
        form_copy_id(file_copy_id(first, "an-asset"), "webp-80"),
        form_copy_id(file_copy_id(first, "another"), "webp-80"),
        form_copy_id(file_copy_id(first, "an-asset"), "-0"),
    }
    assert len(others | {first}) == 10


@pytest.mark.parametrize(
    ("name", "is_shown", "field"),
    [
        ("a b.png", True, 'inline; filename="a b.png"'),
        ("page.html", False, 'attachment; filename="page.html"'),
        ('a".png', True, "inline; filename*=UTF-8''a%22.png"),
        ("日.png", True, "inline; filename*=UTF-8''%E6%97%A5.png"),
        ("a\r\nX: y.png", False, "attachment; filename*=UTF-8''a%0D%0AX%3A%20y.png"),
        ("\ud800.png", False, "attachment; filename*=UTF-8''%3F.png"),
    ],
)
def test_a_copy_is_shown_or_saved_under_its_own_name(name: str, is_shown: bool, field: str) -> None:
    assert disposition_of(name, is_shown=is_shown) == field


@pytest.mark.parametrize(
    ("name", "others", "is_kept"),
    [
        ("a_00001_.png", ["a_00001_.png"], True),
        ("a_00001_.png", ["a_00001_.png", "a_00002_.png"], False),
        ("a_00002_.png", ["a_00001_.png", "a_00002_.png"], True),
        ("a_00001_.png", ["b_00009_.png", "a_9_.txt"], False),
        ("a_00001_.png", ["ab_00009_.png", "a_x_.png", "a_", "a_00009.png"], True),
        ("a_1_00002_.png", ["a_1_00003_.png"], False),
        ("a_1_00002_.png", ["a_2_00001_.png"], True),
        ("a_1_00002_.png", ["a_1_00001_.png"], True),
        ("plain.png", [], False),
        ("plain.png", ["a_00001_.png"], False),
        ("a_00001_.png", ["a_00002_.png", "b.png"], False),
        ("a_00001_.png", ["a_9999999999999_.png"], True),
    ],
)
def test_the_highest_number_of_each_kind_is_kept(name: str, others: list[str], is_kept: bool) -> None:
    assert keeps_count(name, others) is is_kept

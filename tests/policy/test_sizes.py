"""Sizes as people write them: one reading for every section."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.settings import PolicySettings
from policy.sizes import parse_size
from proxy.config.server import ServerSettings

FACTORS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
FACTORS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        (4096, 4096),
        ("0", 0),
        ("512", 512),
        ("7 B", 7),
        ("2kB", 2000),
        ("1.5KiB", 1536),
        ("1.9B", 1),
        (" 8mib ", 8 * 1024**2),
        ("100MB", 100_000_000),
        ("1 GB", 10**9),
        ("1TiB", 1024**4),
    ],
)
def test_sizes(text: Any, expected: int) -> None:
    assert parse_size(text) == expected


@given(st.integers(0, 4095), st.sampled_from(sorted(FACTORS)), st.sampled_from(["", " "]), st.booleans())
def test_every_unit_has_its_factor(amount: int, unit: str, space: str, is_lower: bool) -> None:
    text = f"{amount}{space}{unit}"
    assert parse_size(text.lower() if is_lower else text) == amount * FACTORS[unit]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "MiB", "-1", -1, "1e3", "1,5MiB", "8 MiB x", "1PiB", "1Mbit", "1_000", ".5MiB", "1.MiB", "1.5.5"),
        *(True, 1.5, None, [], b"1", "٣", "٣MiB", "9" * 400, "0x10"),
    ],
)
def test_sizes_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="write a size such as"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1.5MiB", "8mib", "1TB", "2kB", "7 B", 4096])
def test_every_section_reads_the_same(text: Any) -> None:
    assert PolicySettings(max_prompt_bytes=text).max_prompt_bytes == parse_size(text)
    assert ServerSettings(max_prompt_bytes=text).max_prompt_bytes == parse_size(text)


@pytest.mark.parametrize("text", ["8 MB x", -1, None, True])
def test_every_section_says_the_same_of_a_mistake(text: Any) -> None:
    sentence = 'write a size such as "8MiB", "100MB" or a number of bytes'
    with pytest.raises(ValueError, match=sentence):
        ServerSettings(max_prompt_bytes=text)
    if text is not None:
        with pytest.raises(ValueError, match=sentence):
            PolicySettings(max_prompt_bytes=text)

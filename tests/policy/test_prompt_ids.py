from __future__ import annotations

import uuid
from typing import Any

import pytest

from policy.prompt_ids import is_prompt_id

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((ID, True), (str(uuid.UUID(int=2**127 - 1, version=4)), True), ("0" * 8 + "-0000-0000-0000-" + "0" * 12, True)),
        *((ID.upper(), False), (ID.replace("-", ""), False), (f"{{{ID}}}", False), (f"urn:uuid:{ID}", False)),
        *((f"{ID} ", False), ("", False), ("x", False), (None, False), (7, False), (uuid.UUID(ID), False), ([ID], False)),
    ],
)  # fmt: skip
def test_one_spelling_is_an_id(value: Any, expected: bool) -> None:
    assert is_prompt_id(value) is expected

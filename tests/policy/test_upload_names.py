from __future__ import annotations

import pytest

from policy.spelling import MAX_LENGTH, unspell
from policy.upload_names import MAX_COMPARED_BYTES, MAX_COPIES, Namesakes, number_of, set_apart, unnumbered

TOKEN = "0a1b2c3d"
MIB = 1024**2


@pytest.mark.parametrize(
    ("sent", "told", "number"),
    [
        ("photo.png", "photo.png", 0),
        ("photo.png", "photo (1).png", 1),
        ("photo.png", "photo (120).png", 120),
        ("photo.png", "photo (0).png", 0),
        ("photo.png", "photo (01).png", 0),
        ("photo.png", f"photo ({TOKEN}).png", 0),
        ("photo.png", "other (1).png", 0),
        ("photo.png", "photo (1).jpg", 0),
        ("photo.png", "photo", 0),
        ("photo (1).png", "photo (1) (2).png", 2),
        ("photo", "photo (3)", 3),
        (".png", ".png (3)", 3),
        ("a.tar.gz", "a.tar (4).gz", 4),
    ],
)
def test_the_number_is_comfyuis(sent: str, told: str, number: int) -> None:
    assert number_of(sent, told) == number


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("photo (3).png", ("photo.png", 3)),
        ("photo (3)", ("photo", 3)),
        ("photo (1) (2).png", ("photo (1).png", 2)),
        ("photo.png", None),
        ("photo (0).png", None),
        ("photo(3).png", None),
        ("photo (3)x.png", None),
        (" (3).png", None),
    ],
)
def test_a_numbered_name_is_a_copy_of_another(name: str, found: tuple[str, int] | None) -> None:
    assert unnumbered(name) == found


@pytest.mark.parametrize(
    ("name", "apart"),
    [("photo.png", f"photo ({TOKEN}).png"), ("photo", f"photo ({TOKEN})"), ("größe 1.png", f"größe 1 ({TOKEN}).png")],
)
def test_a_name_is_set_apart_as_comfyui_does_it(name: str, apart: str) -> None:
    assert unspell(set_apart(name, TOKEN)) == apart


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "%" * 80 + ".png"])
def test_a_long_stem_gives_way(name: str) -> None:
    spelled = set_apart(name, TOKEN)
    assert len(spelled) <= MAX_LENGTH
    assert unspell(spelled).startswith(name[:20])
    assert unspell(spelled).endswith(f" ({TOKEN}).png")


def test_a_stem_that_is_too_long_at_any_length_ends_empty() -> None:
    assert set_apart("a." + "x" * 300, TOKEN) == f" ({TOKEN})." + "x" * 300


def test_files_that_came_with_their_numbers_count_besides() -> None:
    assert Namesakes(1, MIB).beside([2 * MIB, 3 * MIB]) == Namesakes(3, 6 * MIB)


def test_copies_are_counted_by_the_highest_number() -> None:
    known = Namesakes()
    for number in (1, 2, 2, 1):
        known = known.after(number, MIB)
    assert known == Namesakes(2, 3 * MIB)
    assert Namesakes().after(40, MIB) == Namesakes(40, 41 * MIB), "others had been there before the gate was started"


@pytest.mark.parametrize(
    ("known", "size_bytes", "is_crowded"),
    [
        (Namesakes(), MAX_COMPARED_BYTES, False),
        (Namesakes(1, 2 * MIB), MIB, False),
        (Namesakes(MAX_COPIES - 1, 0), 1, False),
        (Namesakes(MAX_COPIES, 0), 0, True),
        (Namesakes(3, MAX_COMPARED_BYTES - 4), 1, False),
        (Namesakes(3, MAX_COMPARED_BYTES - 4), 2, True),
    ],
)
def test_so_much_is_compared(known: Namesakes, size_bytes: int, is_crowded: bool) -> None:
    assert known.is_crowded(size_bytes) is is_crowded

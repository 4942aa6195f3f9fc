"""What is remembered of files that were looked through: so much, of the file as it was."""

from __future__ import annotations

from policy.call import UpstreamPath
from policy.media.editing import MAX_PARTS, Edit
from policy.media.workflow_texts import MAX_OWN_BYTES
from policy.namespace import Folder
from policy.principal import TenantId
from proxy.files.known_edits import KnownEdits, Place

EDIT = Edit(5, 1000, bytes(1000))


def place(name: str, tenant: str = "alice", folder: Folder = Folder.OUTPUT) -> Place:
    return Place(TenantId(tenant), folder, UpstreamPath(name))


def test_a_file_is_known_as_it_was() -> None:
    known = KnownEdits()
    assert known.find(place("a")) is None
    assert known.keep(place("a"), "1-5", [EDIT]) == (EDIT,)
    assert known.find(place("a")) == known.find(place("a"), "1-5") == (EDIT,)
    assert known.find(place("a"), "2-5") is None
    assert known.find(place("a", "mallory")) is None
    assert known.find(place("a", folder=Folder.TEMP)) is None
    known.keep(place("a"), "2-5", [])
    assert (known.find(place("a"), "1-5"), known.find(place("a"), "2-5")) == (None, ())


def test_what_says_nothing_of_when_it_is_is_not_kept() -> None:
    known = KnownEdits()
    assert known.keep(place("a"), "", [EDIT]) == (EDIT,)
    assert known.find(place("a")) is None


def test_the_files_that_were_asked_for_longest_ago_go() -> None:
    known = KnownEdits(10_000)
    for number in range(4):
        known.keep(place(str(number)), "1-5", [EDIT])
    known.find(place("0"))
    for number in range(4, 6):
        known.keep(place(str(number)), "1-5", [EDIT])
    assert [number for number in range(6) if known.find(place(str(number))) is None] == [1, 2]


def test_what_is_larger_than_all_the_room_is_not_kept() -> None:
    known = KnownEdits(10_000)
    assert len(known.keep(place("a"), "1-5", [EDIT] * 7)) == 7
    assert known.find(place("a")) is None


def test_the_most_that_a_file_can_have_is_kept() -> None:
    """Else it is looked through again for each of its parts."""
    known = KnownEdits()
    edits = [Edit(number, 1, b"") for number in range(MAX_PARTS - 1)]
    known.keep(place("a"), "1-5", [*edits, Edit(MAX_PARTS, MAX_OWN_BYTES, bytes(MAX_OWN_BYTES))])
    assert known.find(place("a"), "1-5") is not None

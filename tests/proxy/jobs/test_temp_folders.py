"""Files of one name in the temp folders of several ComfyUIs: each is its own tenant's, and none is lost by the other."""

from __future__ import annotations

from policy.principal import TenantId
from proxy.jobs.temp_files import CLOCK_SLACK_S, Left, Made
from proxy.jobs.temp_folders import TempFolders
from tests.proxy.jobs.test_temp_files import ALICE, BOB, NAME, Run

ONE, TWO = "gpu-1", "gpu-2"


def both(alices: Run, bobs: Run, made: Made = Made.NOW) -> TempFolders:
    files = TempFolders()
    for run in (alices, bobs):
        files.claim(run, NAME, made)
    return files


def test_the_one_that_was_written_last_is_told_by_the_name() -> None:
    alices, bobs = Run(ALICE, 1.0, ONE), Run(BOB, 2.0, TWO)
    files = both(alices, bobs)
    assert (files.has(ALICE, NAME), files.has(BOB, NAME)) == (False, True)
    assert (files.made_by(NAME), files.origin(ALICE, NAME), files.origin(BOB, NAME)) == (bobs, None, bobs)
    assert (files.is_another(NAME, 1.5), files.is_another(NAME, 2.5)) == (False, True)
    assert files.made_by("none.png") is None
    assert not files.is_another("none.png", 9.0)


def test_the_other_one_is_told_by_it_when_that_is_gone() -> None:
    for end in (TempFolders.release, lambda files, run: files.lose(run, NAME), lambda files, run: files.move(run, 9.0)):
        alices, bobs = Run(ALICE, 1.0, ONE), Run(BOB, 2.0, TWO)
        files = both(alices, bobs)
        assert not alices.lost_files
        end(files, bobs)
        assert (files.has(ALICE, NAME), files.has(BOB, NAME), files.made_by(NAME)) == (True, False, alices)


def test_both_are_counted_and_each_is_deleted_where_it_is() -> None:
    files = both(Run(ALICE, 1.0, ONE), Run(ALICE, 2.0, TWO))
    older = files.older(ALICE, 9.0)
    assert older == [(NAME, Left(at_s + CLOCK_SLACK_S, comfyui)) for at_s, comfyui in ((1.0, ONE), (2.0, TWO))]
    files.forget(older[1:])
    assert files.older(ALICE, 9.0) == older[:1]
    assert files.has(ALICE, NAME)


def test_who_is_not_sure_to_have_written_it_has_it_where_nobody_else_did() -> None:
    files = both(Run(ALICE, 1.0, ONE), Run(BOB, 2.0, TWO), Made.UNKNOWN)
    assert files.has(BOB, NAME)
    files = both(Run(ALICE, 1.0, ONE), Run(BOB, 2.0, ONE), Made.UNKNOWN)
    assert not files.has(BOB, NAME)


def test_one_that_was_restarted_has_none_of_deleted_jobs() -> None:
    alices, bobs = Run(ALICE, 1.0, ONE), Run(BOB, 2.0, TWO)
    files = both(alices, bobs)
    files.release(alices)
    files.release(bobs)
    files.forget_unheld(lambda comfyui: comfyui == TWO)
    assert (len(files.older(ALICE, 9.0)), len(files.older(BOB, 9.0))) == (1, 0)


def test_what_is_let_go_is_told() -> None:
    told: list[tuple[TenantId, dict[str, Left]]] = []
    alices = Run(ALICE, 1.0, ONE)
    files = both(alices, Run(BOB, 2.0, TWO))
    files.on_let_go = lambda tenant, names: told.append((tenant, names))
    files.move(alices, 7.0)
    assert told == [(ALICE, {NAME: Left(7.0, ONE)})]

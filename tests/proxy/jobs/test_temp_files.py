"""Whose a name in the temp folder is: of who wrote it last, and of nobody who lost it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.jobs import temp_files
from proxy.jobs.index import TenantJobs
from proxy.jobs.registry import JobRegistry
from proxy.jobs.temp_files import CLOCK_SLACK_S, Left, Made, TempFiles, written_at
from proxy.jobs.temp_folders import TempFolders
from tests.proxy.jobs.stored import row

ALICE, BOB = TenantId("alice"), TenantId("bob")
NAME = "ComfyUI_temp_abcde_00001_.png"


@dataclass(eq=False)
class Run:
    tenant: TenantId = ALICE
    wrote_until_s: float = math.inf
    comfyui: str = ""
    temp_files: set[str] = field(default_factory=set)
    lost_files: set[str] = field(default_factory=set)


def owner(files: TempFiles | TempFolders) -> TenantId | None:
    return next((tenant for tenant in (ALICE, BOB) if files.has(tenant, NAME)), None)


@pytest.mark.parametrize("made", [Made.NOW, Made.UNKNOWN])
def test_who_writes_a_name_has_it(made: Made) -> None:
    files, run = TempFiles(), Run()
    files.claim(run, NAME, made)
    files.claim(run, NAME, Made.NOW)
    assert (owner(files), run.temp_files) == (ALICE, {NAME})


def test_a_name_that_was_taken_over_never_comes_back() -> None:
    files, alices, bobs = TempFiles(), Run(wrote_until_s=1.0), Run(BOB, 2.0)
    files.claim(alices, NAME, Made.NOW)
    files.claim(bobs, NAME, Made.NOW)
    for made in Made:
        files.claim(alices, NAME, made)
        assert owner(files) == BOB
    files.release(bobs)
    for made in Made:
        files.claim(alices, NAME, made)
        assert owner(files) is None


def test_a_name_that_was_deleted_never_comes_back() -> None:
    files, alices = TempFiles(), Run(wrote_until_s=1.0)
    files.claim(alices, NAME, Made.NOW)
    files.forget([NAME, "unknown"])
    files.claim(alices, NAME, Made.NOW)
    assert owner(files) is None


def test_a_comfyui_that_was_started_anew_has_no_files() -> None:
    files, first = TempFiles(), Run(wrote_until_s=1.0)
    files.claim(first, NAME, Made.NOW)
    files.release(first)
    files.forget_unheld(lambda comfyui: True)
    files.claim(Run(), NAME, Made.EARLIER)
    assert owner(files) is None


def test_what_is_told_late_is_taken_from_nobody() -> None:
    """Two jobs ended between two looks at the history, which come in any order."""
    files, alices, bobs = TempFiles(), Run(wrote_until_s=1.0), Run(BOB, 2.0)
    files.claim(bobs, NAME, Made.NOW)
    files.claim(alices, NAME, Made.NOW)
    assert owner(files) == BOB
    files.release(bobs)
    files.claim(Run(wrote_until_s=1.5), NAME, Made.NOW)
    assert owner(files) is None, "not even when the later one was deleted"


def test_an_answer_from_the_cache_shows_ones_own_earlier_file() -> None:
    files, first, again = TempFiles(), Run(wrote_until_s=1.0), Run(wrote_until_s=5.0)
    files.claim(first, NAME, Made.NOW)
    files.claim(again, NAME, Made.EARLIER)
    files.claim(again, NAME, Made.EARLIER)
    files.release(first)
    assert (owner(files), again.temp_files) == (ALICE, {NAME})
    files.release(again)
    assert owner(files) is None
    third = Run(wrote_until_s=9.0)
    files.claim(third, NAME, Made.EARLIER)
    assert owner(files) == ALICE, "also when the first job was deleted from the history"
    assert files.older(ALICE, 2.0) == {NAME: Left(1.0 + CLOCK_SLACK_S, "")}, "it is as old as the run that wrote it"


@pytest.mark.parametrize("is_deleted", [True, False])
def test_an_answer_from_the_cache_shows_nothing_of_a_neighbours(is_deleted: bool) -> None:
    files, bobs = TempFiles(), Run(BOB, 2.0)
    files.claim(bobs, NAME, Made.NOW)
    if is_deleted:
        files.release(bobs)
    again = Run()
    for made in (Made.UNKNOWN, Made.EARLIER, Made.UNKNOWN, Made.NOW):
        files.claim(again, NAME, made)
        assert owner(files) == (None if is_deleted else BOB)


def test_an_answer_from_the_cache_of_a_run_that_nobody_knows_shows_nothing() -> None:
    files = TempFiles()
    files.claim(Run(), NAME, Made.EARLIER)
    assert owner(files) is None


@pytest.mark.parametrize("has_earlier", [True, False])
def test_what_was_not_known_is_settled_by_the_history(has_earlier: bool) -> None:
    files, first, run = TempFiles(), Run(wrote_until_s=1.0), Run()
    if has_earlier:
        files.claim(first, NAME, Made.NOW)
    files.claim(run, NAME, Made.UNKNOWN)
    assert owner(files) == ALICE
    run.wrote_until_s = 5.0
    files.claim(run, NAME, Made.EARLIER)
    assert owner(files) == (ALICE if has_earlier else None)
    assert files.older(ALICE, 2.0).keys() == ({NAME} if has_earlier else set())
    files.claim(run, NAME, Made.EARLIER)
    assert owner(files) == (ALICE if has_earlier else None)


def test_what_is_certain_goes_before_what_is_not() -> None:
    """The neighbour's end is read after the event of a job that may only repeat an earlier one."""
    files, alices, bobs = TempFiles(), Run(), Run(BOB, 2.0)
    files.claim(alices, NAME, Made.UNKNOWN)
    files.claim(bobs, NAME, Made.NOW)
    assert owner(files) == BOB
    assert alices.lost_files == {NAME}


def test_a_file_that_is_newer_than_its_run_is_another_one(tmp_path: Path) -> None:
    """A gate that was started anew knows an old history, and nothing of who deleted what since."""
    file = tmp_path / NAME
    files, run = TempFiles(written_at(lambda comfyui: tmp_path)), Run(wrote_until_s=100.0)
    files.claim(run, NAME, Made.NOW)
    assert owner(files) == ALICE, "nothing lies there: ComfyUI says so itself"
    file.write_bytes(b"x")
    for at_s, expected in ((99.0, ALICE), (100.0 + CLOCK_SLACK_S / 2, ALICE), (100.2, None), (1000.0, None)):
        os.utime(file, (at_s, at_s))
        assert owner(files) == expected, at_s
    again = Run(wrote_until_s=2000.0)
    files.claim(again, NAME, Made.EARLIER)
    assert owner(files) is None, "what only repeats it makes it no newer"
    file.unlink()
    file.mkdir()
    assert owner(files) == ALICE
    assert not files.has(ALICE, "\0")


def test_a_file_is_looked_at_in_the_folder_of_the_comfyui_that_wrote_it(tmp_path: Path) -> None:
    for comfyui, at_s in (("gpu-1", 1000.0), ("gpu-2", 99.0)):
        (tmp_path / comfyui).mkdir()
        (tmp_path / comfyui / NAME).touch()
        os.utime(tmp_path / comfyui / NAME, (at_s, at_s))
    for comfyui, expected in (("gpu-1", None), ("gpu-2", ALICE), ("unseen", ALICE)):
        files = TempFiles(written_at({"gpu-1": tmp_path / "gpu-1", "gpu-2": tmp_path / "gpu-2"}.get))
        run = Run(wrote_until_s=100.0, comfyui=comfyui)
        files.claim(run, NAME, Made.NOW)
        assert (owner(files), files.made_by(NAME)) == (expected, run)
        assert files.older(ALICE, 200.0) == {NAME: Left(100.0 + CLOCK_SLACK_S, comfyui)}


def test_what_nobody_may_see_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temp_files, "MAX_UNHELD", 3)
    files = TempFiles()
    for number in range(10):
        run = Run(wrote_until_s=1.0)
        files.claim(run, f"{number}.png", Made.NOW)
        files.release(run)
    assert files.older(ALICE, 2.0).keys() == {"7.png", "8.png", "9.png"}


def test_places_are_those_among_all_of_the_tenants_jobs() -> None:
    jobs = TenantJobs(ALICE, lambda tenant, name: False)
    states = {"ended": (False, True, False), "runs": (True, False, False), "waits": (False, False, False)}
    for sequence, (prompt_id, (is_running, has_ended, is_deleted)) in enumerate([*states.items()][::-1]):
        jobs.put(prompt_id, (0.0, sequence), is_running=is_running, has_ended=has_ended, is_deleted=is_deleted)
    assert [jobs.place_of(each) for each in (*states, "unknown")] == [1, 2, 3, 0]
    assert (jobs.count_finished(), jobs.count_unfinished()) == (1, 2)
    jobs.put("runs", (0.0, 1.0), is_running=True, has_ended=True, is_deleted=False)
    jobs.put("waits", (0.0, 0.0), is_running=False, has_ended=True, is_deleted=True)
    assert (jobs.finished(), jobs.place_of("runs")) == (["runs", "ended"], 1), "in the order in which they came"
    assert (jobs.owns("waits"), jobs.place_of("waits"), jobs.pending()) == (True, 0, [])
    jobs.remove("waits")
    jobs.remove("waits")
    assert not jobs.owns("waits")


def test_what_a_job_made_stays_behind_when_it_goes_to_another_comfyui() -> None:
    files, told = TempFiles(), list[tuple[TenantId, dict[str, Left]]]()
    files.on_let_go = lambda tenant, names: told.append((tenant, names))
    run, other = Run(comfyui="gpu-2"), Run(comfyui="gpu-2")
    files.claim(run, NAME, Made.NOW)
    files.claim(other, NAME, Made.EARLIER)
    files.move(run, 7.0)
    assert (owner(files), run.temp_files, run.lost_files, other.temp_files) == (None, set(), set(), set())
    assert told == [(ALICE, {NAME: Left(7.0, "gpu-2")})]
    run.comfyui = "gpu-1"
    files.claim(run, NAME, Made.NOW)
    assert owner(files) == ALICE, "another file, of its own"


def test_what_a_job_has_from_an_earlier_one_is_that_ones_when_it_goes_to_another_comfyui() -> None:
    files, told = TempFiles(), list[TenantId]()
    files.on_let_go = lambda tenant, names: told.append(tenant)
    earlier, run = Run(wrote_until_s=1.0), Run()
    files.claim(earlier, NAME, Made.NOW)
    files.claim(run, NAME, Made.EARLIER)
    files.move(run, 7.0)
    assert (owner(files), run.temp_files) == (ALICE, set())
    files.claim(run, NAME, Made.EARLIER)
    files.release(earlier)
    files.move(run, 7.0)
    assert owner(files) is None
    files.claim(Run(), NAME, Made.EARLIER)
    assert (owner(files), told) == (ALICE, [])


def test_a_job_of_a_comfyui_that_is_configured_no_more_keeps_its_files() -> None:
    """They are looked up at the first, which may be the same one by another name, each time that the job is read."""
    registry = JobRegistry(comfyuis=["gpu-1", "gpu-2"])
    job = registry.apply(row("job", comfyui="before"))
    registry.add_temp_files(job.prompt_id, [NAME])
    assert registry.apply(row("job", comfyui="before")) is job
    assert (owner(registry.temp_files), job.comfyui) == (ALICE, "gpu-1")
    registry.apply(row("job", comfyui="gpu-2"))
    assert owner(registry.temp_files) is None

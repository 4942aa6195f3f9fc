"""What must hold after a fault, of what was answered, what ran, and what the gate tells afterwards. Has no clock and asks nobody."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.recording import Line

_Wrong = Callable[[str, str], None]

UNSEEN_S = 1.0
"""A job that ended this shortly before its ComfyUI died may have ended unseen: nobody can tell it from one that ran when ComfyUI died."""


@dataclass
class Submission:
    """prompt_id: None as long as it was never answered with 200."""

    tenant: str
    name: str
    prompt_id: str | None = None
    answers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Told:
    """What the gate tells a tenant at the end. history: status_str by prompt id. queued: ids that still wait or run."""

    history: Mapping[str, str]
    queued: Sequence[str] = ()


@dataclass(frozen=True)
class Case:
    """A round. is_ordered: submissions are in the order in which each tenant sent them. passes: by how many of its tenant's later ones a job may be passed:
    one that is left to a ComfyUI which has no room lets those behind it pass (policy/placement.py).

    deaths: when each ComfyUI was killed, or no gate followed it any more before, by its life. held: the ids that it had then in its queue, or had run
    and nobody had seen the end of; where that is not known, what ended less than UNSEEN_S before. began: those of them that had begun, or stood first,
    as far as anybody knows. seen: the ids whose end stood in the gate's database by then, where that is known. unseen: ids that had begun by then, and no
    gate had said so.
    tried: ids that were only to be tried, and had come to their turn when
    they were taken back (proxy/jobs/trial.py); of several ComfyUIs, what was given more than once too.
    doubted: ids of which the gate has written down once that nobody knows whether they had begun when ComfyUI went away: that does not count against
    them, and they go alone the next time.
    """

    submissions: Sequence[Submission]
    lines: Sequence[Line]
    deaths: Mapping[int, float]
    told: Mapping[str, Told]
    is_ordered: bool = True
    passes: int = 0
    held: Mapping[int, Collection[str]] | None = None
    began: Mapping[int, Collection[str]] | None = None
    seen: Mapping[int, Collection[str]] = field(default_factory=dict)
    tried: Collection[str] = ()
    doubted: Collection[str] = ()
    unseen: Mapping[int, Collection[str]] = field(default_factory=dict)


class Run(NamedTuple):
    """One attempt of a job. end: how it ended, None when it never did."""

    prompt_id: str
    life: int
    begin_s: float
    end: str | None
    end_s: float | None

    def was_cut_off(self, case: Case) -> bool:
        """Whether its ComfyUI died while it ran, or before anybody can have seen that it had ended."""
        if self.prompt_id in case.seen.get(self.life, ()):
            return False
        death_s = case.deaths.get(self.life)
        if death_s is None or self.end_s is None:
            return death_s is not None
        if case.held is None:
            return death_s - self.end_s < UNSEEN_S
        return self.prompt_id in case.held[self.life]

    def was_begun_unseen(self, case: Case, runs: Mapping[str, list[Run]]) -> bool:
        """Whether its ComfyUI died before anybody can have known of its begin: the end of a job before it had not been seen either.

        The gate takes that job for the one that ran, and has it begun again; this one stood behind it, as far as anybody knows.
        """
        if not self.was_cut_off(case):
            return False
        if self.prompt_id in case.unseen.get(self.life, ()):
            return True
        before = [
            run
            for run in _all(runs)
            if run.life == self.life and run.begin_s < self.begin_s and run.end_s is not None and run.was_cut_off(case)
        ]
        if case.held is not None:
            return bool(before)
        again = {run.prompt_id for run in _all(runs) if run.begin_s > self.begin_s}
        return any(run.prompt_id in again for run in before)


def _all(runs: Mapping[str, list[Run]]) -> Iterable[Run]:
    return (run for each in runs.values() for run in each)


@dataclass
class Verdict:
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        self.counts += other.counts
        self.wrong += other.wrong


def judge(case: Case) -> Verdict:
    verdict = Verdict()
    runs = runs_of(case.lines)
    for submission in case.submissions:
        _judge_job(submission, runs, case, verdict)
    for tenant in sorted({each.tenant for each in case.submissions}):
        if case.is_ordered:
            _judge_order(tenant, case, runs, verdict)
        _judge_told(tenant, case, verdict)
    return verdict


def runs_of(lines: Iterable[Line]) -> dict[str, list[Run]]:
    """By the job's name, in the order in which they began."""
    ended: dict[tuple[str, int], list[Line]] = defaultdict(list)
    lines = list(lines)
    for line in lines:
        if line.event != "begin":
            ended[line.name, line.life].append(line)
    runs: dict[str, list[Run]] = defaultdict(list)
    for line in lines:
        if line.event == "begin":
            ends = ended[line.name, line.life]
            end = ends.pop(0) if ends else None
            runs[line.name].append(
                Run(line.prompt_id, line.life, line.at_s, end.event if end else None, end.at_s if end else None)
            )
    return runs


def _judge_job(submission: Submission, all_runs: Mapping[str, list[Run]], case: Case, verdict: Verdict) -> None:
    runs = all_runs.get(submission.name, [])

    def wrong(what: str, kind: str) -> None:
        verdict.wrong.append(f"{submission.name} ({submission.prompt_id}) {what}: answers {submission.answers}, {runs}")
        verdict.counts[kind] += 1

    history = case.told[submission.tenant].history
    is_accepted = submission.prompt_id is not None
    ids = {submission.prompt_id} if submission.prompt_id is not None else {run.prompt_id for run in runs}
    prompt_id = next((each for each in ids if each in history), "")
    outcome = history.get(prompt_id)
    verdict.counts["jobs" if is_accepted else "not accepted"] += 1
    verdict.counts["retried"] += len(runs) > 1
    if len({run.prompt_id for run in runs}) > 1:
        wrong("ran as several jobs", "doubled")
    if is_accepted and any(run.prompt_id != submission.prompt_id for run in runs):
        wrong("ran under another id", "doubled")
    for run in runs[:-1]:
        if not run.was_cut_off(case):
            wrong("was begun again though nothing had cut it off", "doubled")
    if sum(not run.was_begun_unseen(case, all_runs) for run in runs) > 2 + any(
        run.prompt_id in case.doubted for run in runs
    ):
        wrong("was begun more than twice", "doubled")
    if is_accepted and outcome is None:
        wrong("is not in the history", "lost")
    _judge_outcome(outcome, prompt_id, runs, case, verdict, wrong)


def _judge_outcome(
    outcome: str | None, prompt_id: str, runs: list[Run], case: Case, verdict: Verdict, wrong: _Wrong
) -> None:
    has_ended = any(run.end == "end" for run in runs)
    was_twice_away = len(runs) >= 2 and all(run.was_cut_off(case) for run in runs)
    if case.held is not None:
        # What stood first in the queue of a ComfyUI that died may have run, as far as anybody knows.
        was_twice_away = sum(prompt_id in began for began in (case.began or case.held).values()) >= 2
    if outcome == "success" and not has_ended:
        wrong("is told to have succeeded, and never ended", "lost")
    if outcome == "error":
        if was_twice_away:
            verdict.counts["failed by rule"] += 1
        else:
            wrong("is told to have failed", "lost")


def _judge_order(tenant: str, case: Case, runs: Mapping[str, list[Run]], verdict: Verdict) -> None:
    """What had an answer at once is begun after all such before it. What had none may come late, as what is asked for again does, and never early."""
    first = {
        each.name: runs[each.name][0].begin_s
        for each in case.submissions
        if each.tenant == tenant and runs.get(each.name) and runs[each.name][0].prompt_id not in case.tried
    }
    was_sure = {each.name for each in case.submissions if all(status == 200 for status in each.answers)}
    passed: Counter[str] = Counter()
    for name, begin_s in first.items():
        for earlier in [each for each in passed if first[each] > begin_s]:
            passed[earlier] += 1
            if passed[earlier] == case.passes + 1:
                verdict.wrong.append(
                    f"{tenant}'s {name} was begun before {earlier}, and submitted after it; {list(first)}"
                )
                verdict.counts["out of order"] += 1
        if name in was_sure:
            passed[name] = 0


def _judge_told(tenant: str, case: Case, verdict: Verdict) -> None:
    told = case.told[tenant]
    own = {each.prompt_id for each in case.submissions if each.tenant == tenant}
    unanswered = {each.name for each in case.submissions if each.tenant == tenant and each.prompt_id is None}
    own |= {line.prompt_id for line in case.lines if line.name in unanswered}
    for stranger in sorted(set(told.history) - own):
        verdict.wrong.append(f"{tenant} is told of {stranger}, which it has not submitted")
        verdict.counts["strange"] += 1
    if told.queued:
        verdict.wrong.append(f"{tenant}'s queue still has {list(told.queued)}")
        verdict.counts["left"] += len(told.queued)

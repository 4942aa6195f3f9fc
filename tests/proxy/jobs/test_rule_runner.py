"""Dialogues are carried out step by step; a claimed job that did not come to be is released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from policy.call import (
    ClaimedJob,
    ClaimJob,
    ClientReply,
    Opaque,
    Place,
    RecordJob,
    ReleaseJob,
    RuleGenerator,
    UpstreamCall,
    UpstreamReply,
)
from policy.principal import Principal, TenantId
from policy.violation import Reason, Violation
from proxy.http.errors import (
    LimitExceeded,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
    refusal_for,
)
from proxy.http.request_record import RequestRecord
from proxy.jobs.noted import Note
from proxy.jobs.rule_runner import RuleRunner
from proxy.persistence.operations import DatabaseUnavailable, Operation, Statement

ALICE = Principal("a", TenantId("alice"))
CLAIM = ClaimJob("wish", "hash")
JOB = ClaimedJob("job", 1000, True)
RECORD = RecordJob("job", Place.NEXT, b"{}", b"[]", b"[]")
RESULTS: Any = None
"""No rule here reads what is on disk."""


def call(name: str) -> UpstreamCall:
    return UpstreamCall("GET", (Opaque(name),))


class Upstream:
    """Answers each call with its path, or raises what stands under it."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.asked: list[str] = []
        self.limits: set[float] = set()

    async def ask(self, call: UpstreamCall, *, time_limit_s: float) -> UpstreamReply:
        self.asked.append(str(call.segments[0]))
        self.limits.add(time_limit_s)
        await asyncio.sleep(0)
        if self.asked[-1] in self.errors:
            raise self.errors[self.asked[-1]]
        return UpstreamReply(200, call.target)


class JobAdmission:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.record_error: Exception | None = None
        self.said: list[tuple[str, str]] = []

    async def claim(self, principal: Principal, wish: ClaimJob) -> ClaimedJob:
        if self.error is not None:
            raise self.error
        self.said.append(("claimed", principal.tenant))
        return JOB

    async def record(self, wish: RecordJob, note: Note | None = None) -> float | None:
        if note is not None:
            self.said += [("noted", statement.sql) for statement in note()]
        if isinstance(self.record_error, Exception):
            raise self.record_error
        self.said.append(("recorded", wish.prompt_id))
        return 7.0

    def accepted(self, prompt_id: str) -> None:
        self.said.append(("accepted", prompt_id))

    async def release(self, prompt_id: str, *, is_doubtful: bool = False) -> None:
        self.said.append(("doubted" if is_doubtful else "released", prompt_id))


def conversation(upstream: Upstream, admission: JobAdmission) -> RuleRunner:
    record = RequestRecord("GET", "id", "127.0.0.1")
    return RuleRunner(upstream, admission, RESULTS, ALICE, record, 7.0)  # type: ignore[arg-type]


async def test_answers_are_sent_into_the_dialogue() -> None:
    def runner() -> RuleGenerator:
        first = yield call("one")
        both = yield (call("two"), call("three"))
        return ClientReply(200, [first.value, *(reply.value for reply in both)])

    upstream, admission = Upstream(), JobAdmission()
    talking = conversation(upstream, admission)
    reply = await talking.run(runner())
    assert reply.body == ["/one", "/two", "/three"]
    assert upstream.limits == {7.0}
    assert admission.said == []
    assert talking._record.upstream_s > 0


async def test_a_claimed_job_that_came_to_be_is_accepted() -> None:
    def runner() -> RuleGenerator:
        job = yield CLAIM
        assert job == JOB
        number = yield RECORD
        assert number == 7.0
        yield call("prompt")
        return ClientReply(200)

    admission = JobAdmission()
    await conversation(Upstream(), admission).run(runner())
    assert admission.said == [("claimed", "alice"), ("recorded", "job"), ("accepted", "job")]


class Beforehand:
    """said: as JobAdmission's."""

    def __init__(self, admission: JobAdmission) -> None:
        self.said = admission.said
        self.is_failed = False

    async def write(self, prompt_id: str) -> None:
        self.said.append(("written", prompt_id))

    def within(self, prompt_id: str) -> Note:
        def note() -> Operation[bool]:
            yield Statement(prompt_id)
            return True

        return note

    def failed(self) -> None:
        self.is_failed = True


def noting(admission: JobAdmission) -> tuple[RuleRunner, Beforehand]:
    talking, beforehand = conversation(Upstream(), admission), Beforehand(admission)
    talking.beforehand = beforehand
    return talking, beforehand


async def test_what_is_to_be_written_before_comfyui_is_asked_is_recorded_with_the_job() -> None:
    def runner() -> RuleGenerator:
        yield CLAIM
        yield RECORD
        yield call("prompt")
        return ClientReply(200)

    admission = JobAdmission()
    talking, beforehand = noting(admission)
    await talking.run(runner())
    assert admission.said == [("claimed", "alice"), ("noted", "job"), ("recorded", "job"), ("accepted", "job")]
    assert not beforehand.is_failed


async def test_it_is_written_by_itself_where_comfyui_is_asked_first() -> None:
    def runner() -> RuleGenerator:
        yield CLAIM
        yield call("prompt")
        yield RECORD
        return ClientReply(200)

    admission = JobAdmission()
    await noting(admission)[0].run(runner())
    assert admission.said == [("claimed", "alice"), ("written", "job"), ("recorded", "job"), ("accepted", "job")]


async def test_a_job_that_is_released_before_anything_was_sent_leaves_nothing_written() -> None:
    def runner() -> RuleGenerator:
        job = yield CLAIM
        yield ReleaseJob(job.prompt_id)
        return ClientReply(400)

    admission = JobAdmission()
    await noting(admission)[0].run(runner())
    assert admission.said == [("claimed", "alice"), ("released", "job")]


@pytest.mark.parametrize(("error", "is_failed"), [(LookupError(), True), (DatabaseUnavailable("gone"), False)])
async def test_of_a_job_that_is_not_recorded_nothing_is_written_either(error: Exception, is_failed: bool) -> None:
    """But where nobody knows whether it is on disk."""

    def runner() -> RuleGenerator:
        yield CLAIM
        yield RECORD
        raise AssertionError("not reached")

    admission = JobAdmission()
    admission.record_error = error
    talking, beforehand = noting(admission)
    with pytest.raises(type(error)):
        await talking.run(runner())
    assert beforehand.is_failed is is_failed


async def test_a_job_that_comfyui_refused_is_released_once() -> None:
    def runner() -> RuleGenerator:
        job = yield CLAIM
        yield ReleaseJob(job.prompt_id)
        return ClientReply(400)

    admission = JobAdmission()
    reply = await conversation(Upstream(), admission).run(runner())
    assert reply.status == 400
    assert admission.said == [("claimed", "alice"), ("released", "job")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UpstreamUnavailable(), "doubted"),
        (UpstreamTimeout(), "doubted"),
        (UpstreamUnreachable(), "released"),
        (LookupError("a bug"), "released"),
    ],
)
async def test_a_claimed_job_is_released_whatever_went_wrong(error: Exception, said: str) -> None:
    """Where ComfyUI was sent it and did not answer, it may be there."""

    def runner() -> RuleGenerator:
        yield CLAIM
        yield call("prompt")
        raise AssertionError("not reached")

    admission = JobAdmission()
    with pytest.raises(type(error)) as caught:
        await conversation(Upstream(prompt=error), admission).run(runner())
    assert caught.value is error
    assert admission.said[-1] == (said, "job")


async def test_what_cannot_be_recorded_is_refused_for_now_and_released() -> None:
    def runner() -> RuleGenerator:
        yield CLAIM
        yield RECORD
        raise AssertionError("not reached")

    upstream, admission = Upstream(), JobAdmission()
    admission.record_error = DatabaseUnavailable("the disk is full")
    with pytest.raises(DatabaseUnavailable) as refused:
        await conversation(upstream, admission).run(runner())
    refusal = refusal_for(refused.value)
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (503, "database-unavailable")
    assert dict(refusal.headers)["Retry-After"] == "5"
    assert "disk" not in refusal.message
    assert admission.said == [("claimed", "alice"), ("released", "job")]
    assert upstream.asked == []


async def test_a_violation_after_the_claim_releases_too() -> None:
    def runner() -> RuleGenerator:
        yield CLAIM
        raise Violation(Reason.POLICY_VIOLATION, "no")

    admission = JobAdmission()
    with pytest.raises(Violation):
        await conversation(Upstream(), admission).run(runner())
    assert admission.said[-1] == ("released", "job")


async def test_cancelling_releases_and_ends_the_dialogue() -> None:
    ended: list[str] = []

    def runner() -> RuleGenerator:
        try:
            yield CLAIM
            yield call("never")
        finally:
            ended.append("closed")
        raise AssertionError("not reached")

    class Silent(Upstream):
        async def ask(self, call: UpstreamCall, *, time_limit_s: float) -> UpstreamReply:
            waiting.set()
            await asyncio.get_running_loop().create_future()
            raise AssertionError("not reached")

    waiting, admission = asyncio.Event(), JobAdmission()
    holding = asyncio.ensure_future(conversation(Silent(), admission).run(runner()))
    await waiting.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert admission.said[-1] == ("doubted", "job")
    assert ended == ["closed"]


async def test_no_slot_means_no_job() -> None:
    def runner() -> RuleGenerator:
        yield CLAIM
        raise AssertionError("not reached")

    admission = JobAdmission(LimitExceeded("full", limit="1", retry_after_s=1))
    with pytest.raises(LimitExceeded):
        await conversation(Upstream(), admission).run(runner())
    assert admission.said == []


async def test_a_dialogue_may_recover() -> None:
    def runner() -> RuleGenerator:
        try:
            yield call("down")
        except UpstreamUnavailable:
            reply = yield call("other")
            return ClientReply(200, reply.value)
        raise AssertionError("not reached")

    reply = await conversation(Upstream(down=UpstreamUnavailable()), JobAdmission()).run(runner())
    assert reply.body == "/other"


async def test_of_several_calls_the_first_failure_is_raised_as_itself() -> None:
    """Not as a group, which no refusal is known for: the client would get 500 where 502 is the truth."""

    def runner() -> RuleGenerator:
        yield (call("fine"), call("down"))
        raise AssertionError("not reached")

    error = UpstreamUnavailable()
    with pytest.raises(UpstreamUnavailable) as caught:
        await conversation(Upstream(down=error), JobAdmission()).run(runner())
    assert caught.value is error


async def test_waits_for_its_turn() -> None:
    order: list[Any] = []

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        order.append("begins")
        yield
        order.append("ends")

    def runner() -> RuleGenerator:
        order.append("talks")
        yield call("one")
        return ClientReply(200)

    await conversation(Upstream(), JobAdmission()).run_exclusively(turn(), runner())
    assert order == ["begins", "talks", "ends"]

"""Jobs that ComfyUI has and the database had not: taken up for whom they belong to, with what they were submitted as."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
import pytest

from policy.call import UpstreamCall, UpstreamReply
from policy.documents import Kind
from policy.rules.prompt import LAST_PLACE
from policy.salt import SALT
from proxy.jobs import adoption
from proxy.jobs.adoption import Adoption
from proxy.jobs.job import JobState, Outcome
from proxy.jobs.queue_reader import Queue
from tests.proxy.jobs.following import ALICE, MALLORY, Following, following

ID = str(uuid.uuid4())
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "tenants/alice/cat.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "tenants/alice/x", SALT: "s"}},
}


class Comfy:
    """Notes what it is asked to delete."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def ask(self, call: UpstreamCall, *, time_limit_s: float) -> UpstreamReply:
        assert call.target == "/queue"
        assert isinstance(call.body, bytes)
        self.deleted += orjson.loads(call.body)["delete"]
        return UpstreamReply(200, None)


def item(client_id: Any = "alice.tab", number: float = 7.0) -> list[Any]:
    return [number, ID, GRAPH, {"client_id": client_id, "create_time": 5000}, ["2"]]


def entry(client_id: str = "alice.tab", kind: str = "execution_success") -> dict[str, Any]:
    messages = [["execution_start", {"timestamp": 1000}], [kind, {"timestamp": 3000, "node_type": "K"}]]
    outputs = {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "temp"}]}}
    return {"prompt": item(client_id), "outputs": outputs, "status": {"messages": messages}}


def adopting(parts: Following, comfy: Comfy) -> Adoption:
    return Adoption(comfy, parts.registry, parts.records)  # type: ignore[arg-type]


async def test_a_job_in_the_queue_is_its_tenants_as_it_was_submitted() -> None:
    async with following(None) as parts:
        await adopting(parts, Comfy()).take(Queue(set(), {ID}, [item()]))
        job = parts.registry.job(ID)
        assert job is not None
        assert (job.tenant, job.client_id, job.state, job.number) == (ALICE, "tab", JobState.DISPATCHED, 7.0)
        row = await parts.stored(ID)
        assert (row.state, row.gate, row.created_at_s) == ("dispatched", parts.records.gate, 5.0)
        read = await parts.documents.read(ALICE, Kind.ITEM, (ID,))
        shown = orjson.loads(read.documents[ID].numbered(1))
        assert shown[2]["1"]["inputs"] == {"image": "cat.png"}
        assert shown[2]["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": "x"}
        assert (shown[3]["client_id"], shown[4]) == ("tab", ["2"])


async def test_that_comfyui_goes_away_while_it_runs_counts_as_of_any_other_job() -> None:
    async with following(None) as parts:
        await adopting(parts, Comfy()).take(Queue({ID}, set(), [item()]))
        job = parts.registry.job(ID)
        assert job is not None
        await parts.endings.lost(job, has_run=True)
        assert (job.state, job.lost_runs) == (JobState.WAITING, 1)


@pytest.mark.parametrize("client_id", ["somebody", None, 7])
async def test_what_no_tenant_sent_is_nobodys(client_id: Any) -> None:
    async with following(None) as parts:
        taking = adopting(parts, Comfy())
        await taking.take(Queue(set(), {ID}, [item(client_id)]))
        await taking.take_entry(ID, entry(str(client_id)))
        assert (parts.registry.job(ID), await parts.row(ID)) == (None, None)
        assert parts.registry.claim(ALICE, ID).prompt_id != ID, "and nobody gets its id"


async def test_what_its_tenant_has_deleted_does_not_come_back() -> None:
    async with following(None) as parts:
        job = await parts.taken(prompt_id=ID)
        await parts.records.forget(ALICE, [job.prompt_id])
        taking = adopting(parts, Comfy())
        await taking.take(Queue(set(), {ID}, [item()]))
        await taking.take_entry(ID, entry())
        assert (parts.registry.job(ID), await parts.row(ID)) == (None, None)


@pytest.mark.parametrize(
    ("kind", "state", "outcome"),
    [
        ("execution_success", "succeeded", Outcome.COMPLETED),
        ("execution_error", "failed", Outcome.FAILED),
        ("execution_interrupted", "canceled", Outcome.CANCELLED),
    ],
)
async def test_what_ended_before_is_its_tenants_history(kind: str, state: str, outcome: Outcome) -> None:
    async with following(None) as parts:
        await adopting(parts, Comfy()).take_entry(ID, entry(kind=kind))
        row, job = await parts.stored(ID), parts.registry.job(ID)
        assert job is not None
        assert (row.state, row.gpu_s, row.ended_at_s, row.created_at_s) == (state, 2.0, 3.0, 5.0)
        assert (job.outcome, parts.registry.of(ALICE).finished(), parts.told) == (outcome, [ID], [])
        assert parts.registry.of(ALICE).has_temp_file("a.png")
        assert not parts.registry.of(MALLORY).has_temp_file("a.png")
        read = await parts.documents.read(ALICE, Kind.ENTRY, (ID,))
        assert orjson.loads(read.documents[ID].numbered(1))["prompt"][2]["1"]["inputs"] == {"image": "cat.png"}


@pytest.mark.parametrize("broken", [None, [], {}, {"prompt": "x"}, {"prompt": [1, ID, {}]}, {"prompt": [1, ID, {}, 7]}])
async def test_what_is_no_entry_is_passed_over(broken: Any) -> None:
    async with following(None) as parts:
        await adopting(parts, Comfy()).take_entry(ID, broken)
        assert not parts.registry.knows(ID)


async def test_what_is_only_tried_is_no_job_and_is_not_left_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(None) as parts:
        comfy = Comfy()
        taking, queue = adopting(parts, comfy), Queue(set(), {ID}, [item(number=LAST_PLACE + 3)])
        await taking.take(queue)
        assert (parts.registry.job(ID), comfy.deleted) == (None, [])
        monkeypatch.setattr(adoption, "TRIAL_LIMIT_S", -1.0)
        await taking.take(queue)
        assert comfy.deleted == [ID]
        await taking.take(Queue({ID}, set(), [item(number=LAST_PLACE + 3)]))
        assert parts.registry.of(ALICE).owns(ID), "it has come to its turn and stays"


async def test_an_entry_is_of_the_run_whose_number_it_has() -> None:
    async with following(None) as parts:
        job = await parts.taken()
        job.number = 7.0
        assert adoption.is_of_run(entry(), job)
        job.number = 8.0
        others: list[Any] = [entry(), None, [], {"prompt": []}, {"prompt": [None]}]
        assert not any(adoption.is_of_run(each, job) for each in others)

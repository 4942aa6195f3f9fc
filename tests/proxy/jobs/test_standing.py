"""A job among all others, as the operator's command reads it (proxy/jobs/operator_operations.py)."""

from __future__ import annotations

from policy.call import JobExtras
from policy.forecast import Expected
from policy.needs import Needs
from policy.placement import Seat
from policy.principal import TenantId
from proxy.jobs import operator_operations as operator
from proxy.jobs import store_operations as store
from proxy.jobs.operator_operations import Foreseen
from proxy.jobs.store_reading import listing
from proxy.jobs.store_upkeep import drain_one
from proxy.persistence.operations import Database, Operation, Statement
from tests.proxy.jobs.test_operator_operations import COMFYUI, SUBMITTED, WINDOW, job


def remember_models(comfyui: str, models: str) -> Operation[None]:
    yield Statement("INSERT INTO comfyui_models VALUES (?, ?)", (comfyui, models))


async def test_a_job_is_seen_among_all_others(database: Database) -> None:
    needs = Needs(models=("a.pt",))
    await database.run(store.add_next, job("a"), SUBMITTED, WINDOW, 1.0)
    await database.run(store.add_waiting, job("b", "bob"), SUBMITTED)
    await database.run(
        store.add_waiting, job("late")._replace(cost_s=3.0), SUBMITTED, JobExtras(needs=needs.to_bytes())
    )
    await database.run(store.add_waiting, job("urgent")._replace(rank=-1.0), SUBMITTED)
    await database.run(remember_models, "gpu-2", "a.pt\nb.pt")
    found = await database.read(operator.standing, "late")
    assert found is not None
    assert (found.job.prompt_id, found.needs, found.is_draining) == ("late", needs, False)
    assert {tenant: [each.prompt_id for each in jobs] for tenant, jobs in found.waiting.items()} == {
        "alice": ["urgent", "late"],
        "bob": ["b"],
    }
    assert found.waiting[TenantId("alice")][1] == Expected("late", 3.0, found.job.sequence)
    assert (found.has, found.models) == ({COMFYUI: 1}, {"gpu-2": ("a.pt", "b.pt")})
    assert set(found.tags) == {"alice"}
    other = await database.read(operator.standing, "a")
    assert other is not None
    assert other.needs is None
    assert await database.read(operator.standing, "nothing") is None


async def test_where_a_job_goes_is_foreseen_and_nothing_is_given(database: Database) -> None:
    needs = Needs(models=("a.pt",)).to_bytes()
    for prompt_id in ("first", "second", "third"):
        await database.run(store.add_waiting, job(prompt_id), SUBMITTED, JobExtras(needs=needs))
    await database.run(remember_models, "gpu-2", "a.pt")

    async def foreseen(prompt_id: str, *seats: Seat, only: str = "gpu") -> Foreseen | None:
        return await database.read(
            operator.foresee, prompt_id, seats, lambda comfyui, job: 0.0 if comfyui.startswith(only) else None, 2.0, {}
        )

    both = Seat("gpu-1", 1), Seat("gpu-2", 1)
    assert await foreseen("first", *both) == Foreseen("gpu-2", True), "which has its model"
    assert await foreseen("second", *both) == Foreseen("gpu-2", False), "where it has ended before gpu-1 has loaded it"
    assert await foreseen("third", Seat("gpu-2", 1)) is None, "there is no room before its turn comes"
    assert await foreseen("first", *both, only="other") is None
    await database.run(drain_one, "gpu-2", is_on=True)
    assert await foreseen("first", *both) == Foreseen("gpu-1", True)
    standing = await database.read(operator.standing, "first")
    assert standing is not None
    assert standing.drained == {"gpu-2"}
    assert [each.prompt_id for each in await database.read(listing, None, "waiting", 9)] == ["third", "second", "first"]

"""A job among all others, as the operator's command reads it (proxy/jobs/operator_operations.py)."""

from __future__ import annotations

from policy.call import JobExtras
from policy.forecast import Expected
from policy.needs import Needs
from policy.principal import TenantId
from proxy.jobs import operator_operations as operator
from proxy.jobs import store_operations as store
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
    assert (found.has, found.models) == ({COMFYUI: 1}, {"gpu-2": ["a.pt", "b.pt"]})
    assert set(found.tags) == {"alice"}
    other = await database.read(operator.standing, "a")
    assert other is not None
    assert other.needs is None
    assert await database.read(operator.standing, "nothing") is None

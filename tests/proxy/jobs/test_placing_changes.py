"""To which ComfyUI a job may go, when the configuration changes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy.call import JobExtras
from policy.needs import Needs
from proxy.config.comfyui import ComfyUISettings
from proxy.config.reader import Config, check_config
from proxy.jobs.job_rows import Given
from proxy.jobs.placing import Placing
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import Database
from tests.proxy.jobs.stored import GATE, put

ONE: dict[str, Any] = {"name": "one", "url": "http://a:1", "tenants": ["bob"]}
TWO: dict[str, Any] = {"name": "two", "url": "http://a:2", "labels": ["24gb"]}


def read(*comfyuis: dict[str, Any]) -> Config:
    tenants: dict[str, Any] = {"alice": {}, "bob": {}}
    return check_config({"comfyui": list(comfyuis), "tenants": tenants}, Path("/etc/config.toml"))


class Place:
    """Its configuration may be changed."""

    def __init__(self, database: Database, *comfyuis: dict[str, Any]) -> None:
        self.config = read(*comfyuis)
        registry = JobRegistry(comfyuis=[comfyui.name for comfyui in self.config.comfyuis])
        records = JobRecords(database, registry, GATE, lambda: 1, dict)
        there = {comfyui.name for comfyui in self.config.comfyuis}
        self.asked: set[str] = set()

        def is_there(name: str) -> bool:
            self.asked.add(name)
            return name in there

        def window(comfyui: ComfyUISettings) -> int:
            return self.config.window_of(comfyui)

        self.placing = Placing(registry, records, self.config.comfyuis, lambda: self.config.comfyuis, window, is_there)
        self.placing.lacks = lambda comfyui, needs: ", ".join(set(needs.labels) - set(comfyui.labels))

    async def given(self, *ready: str) -> dict[str, str]:
        found: list[Given] = await self.placing.give(ready)
        return {each.job.prompt_id: each.job.comfyui for each in found}


async def test_whose_jobs_run_where_may_change_while_they_wait(database: Database) -> None:
    here = Place(database, ONE, TWO)
    await put(database, "job", extras=JobExtras(needs=Needs().to_bytes()))
    assert await here.given("one") == {}, "it is left to two"
    here.config = read(ONE, TWO | {"tenants": ["bob"]})
    assert await here.given("one", "two") == {}
    here.config = read(ONE | {"tenants": []}, TWO | {"tenants": ["bob"]})
    assert await here.given("one", "two") == {"job": "one"}


async def test_labels_and_windows_may_change(database: Database) -> None:
    here = Place(database, ONE, TWO | {"window": 1})
    for name in ("a", "b"):
        await put(database, name, extras=JobExtras(needs=Needs(labels=("48gb",)).to_bytes()))
    assert await here.given("one", "two") == {}
    here.config = read(ONE, TWO | {"labels": ["48gb"], "window": 1})
    assert await here.given("one", "two") == {"a": "two"}
    assert not await here.given("one", "two")
    here.config = read(ONE, TWO | {"labels": ["48gb"], "window": 2})
    assert await here.given("one", "two") == {"b": "two"}


async def test_others_than_at_the_start_are_nobody_until_then(database: Database) -> None:
    here = Place(database, ONE, TWO)
    here.config = read({"name": "new", "url": "http://a:3"}, ONE | {"tenants": ["bob"]})
    await put(database, "job", extras=JobExtras(needs=Needs().to_bytes()))
    assert here.placing.has_room()
    assert await here.given("one", "two", "new") == {"job": "two"}, "which is configured no more"
    assert here.asked == {"one", "two"}

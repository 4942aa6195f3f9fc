"""Why a job waits: with what each ComfyUI has and lacks, and beside a gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.call import UpstreamPath
from policy.catalogue import Catalogue, read_catalogue
from policy.forecast import Expected
from policy.namespace import Folder
from policy.needs import Needs
from policy.principal import TenantId
from proxy.commands.job_why import Why, explain, in_words, to_json
from proxy.config import load_config
from proxy.config.reader import Config
from proxy.config.storage import StorageSettings
from proxy.jobs.job import COMFYUI_GONE
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.operator_operations import Foreseen, Standing
from standin import StandIn
from tests.commands.served import served
from tests.commands.test_jobs import jobs, submit, until
from tests.contract.driver import previewing, slow
from tests.harness import write_config
from tests.policy.tenants import node
from tests.several.test_placing import submit as submitted
from tests.several.world import several

ALICE, BOB = TenantId("alice"), TenantId("bob")
JOB = JobRow("job", "alice", sequence=5, created_at_s=100.0)
MODEL = Needs(classes=("Loader",), choices=(("Loader", "name", "a.pt"),), models=("a.pt",))
READS = Needs(files=((Folder.OUTPUT, UpstreamPath("tenants/alice/@two/x.png")),))
HAS, HAS_NOT = (read_catalogue({"Loader": node({"name": [[name]]})}) for name in ("a.pt", "b.pt"))


def standing(needs: Needs | None = MODEL, **more: Any) -> Standing:
    alone = Standing(JOB, needs, False, 0.0, {}, {ALICE: [Expected("job", 1.0, 5)]}, {}, {})
    return alone._replace(**more)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(
        '[[comfyui]]\nname = "one"\nurl = "http://a:1"\n'
        '[[comfyui]]\nname = "two"\nurl = "http://a:2"\nlabels = ["24gb"]\nwindow = 1\n'
        '[[comfyui]]\nname = "three"\nurl = "http://a:3"\ntenants = ["bob"]\n[tenants.alice]\n[tenants.bob]\n',
        encoding="utf-8",
    )
    return load_config(file)


def explained(config: Config, standing: Standing, *catalogues: Catalogue | None, **weights: float) -> Why:
    names = [comfyui.name for comfyui in config.comfyuis]
    return explain(standing, config, dict(zip(names, catalogues or [HAS] * 3, strict=True)), weights)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": StoredState.SUCCEEDED}, "It has succeeded."),
        ({"state": StoredState.FAILED}, "It has failed."),
        ({"state": StoredState.CANCELED}, "It was canceled."),
        ({"state": StoredState.RUNNING, "comfyui": "two"}, "two runs it."),
        ({"state": StoredState.DISPATCHED, "comfyui": "two"}, "two has it in its queue."),
    ],
)
def test_of_a_job_that_does_not_wait_it_is_told_where_it_is(
    changes: dict[str, Any], reason: str, config: Config
) -> None:
    why = explain(standing(job=JOB._replace(**changes)), config, {}, {})
    assert (why.reasons, why.before, why.candidates) == ([reason], None, ())
    assert f"why          {reason}" in in_words(why, 200.0)


def test_that_it_went_where_its_models_were_is_told(config: Config) -> None:
    attempts = '[{"at": 1.0, "comfyui": "two", "had_models": true}]'
    job = JOB._replace(state=StoredState.RUNNING, comfyui="two", attempts=attempts)
    assert explain(standing(job=job), config, {}, {}).reasons == ["two runs it.", "It had its models already."]


def test_each_time_that_a_comfyui_had_it_is_told(config: Config) -> None:
    attempts = '[{"at": 1.0, "comfyui": "two", "ended": 2.0, "reason": "comfyui-gone"}, {"at": 3.0, "comfyui": "one"}]'
    job = JOB._replace(state=StoredState.RUNNING, comfyui="one", attempts=attempts)
    shown = in_words(explain(standing(job=job), config, {}, {}), 200.0)
    assert "attempt 1    1970-01-01 00:00:01 UTC two until 1970-01-01 00:00:02 UTC: comfyui-gone\n" in shown
    assert "attempt 2    1970-01-01 00:00:03 UTC one not ended\n" in shown


@pytest.mark.parametrize(
    ("found", "catalogues", "reasons"),
    [
        (standing(), [HAS, HAS, HAS], ["It is given to one next, by a gate that runs."]),
        (
            standing(is_draining=True),
            [HAS, HAS, HAS],
            ["No job is given to any ComfyUI, until `comfygate jobs drain --off`."],
        ),
        (standing(), [HAS_NOT, HAS_NOT, HAS], ["No ComfyUI that there is has what it needs."]),
        (standing(), [HAS_NOT, None, HAS], ["two does not answer."]),
        (standing(), [None, None, None], ["one and two do not answer."]),
        (standing(has={"two": 1}), [HAS_NOT, HAS, HAS], ["two has no room."]),
        (standing(drained=frozenset({"one"})), [HAS, HAS, HAS], ["It is given to two next, by a gate that runs."]),
        (standing(drained=frozenset({"two"})), [HAS_NOT, HAS, HAS], ["two is drained."]),
        (standing(drained=frozenset({"one", "two"})), [HAS, None, HAS], ["one and two are drained."]),
        (standing(drained=frozenset({"one"})), [HAS, None, HAS], ["two does not answer. one is drained."]),
        (standing(has={"two": 1, "default": 1, "one": 1}), [HAS, HAS, HAS], ["one and two have no room."]),
        (standing(None), [None, HAS, HAS], ["What it needs was not recorded, so it waits for the first one.", "one does not answer."]),
        (
            standing(job=JOB._replace(attempts=f'[{{"reason": "{COMFYUI_GONE}"}}]')),
            [HAS, HAS, HAS],
            ["ComfyUI went away while it ran: it goes where no other job is."],
        ),
        (
            standing(
                waiting={
                    ALICE: [Expected("own", 1.0, 9), Expected("job", 1.0, 5)],
                    BOB: [Expected("b1", 1.0, 1), Expected("b2", 1.0, 2), Expected("b3", 1.0, 7)],
                }
            ),
            [HAS, HAS, HAS],
            ["3 jobs come before it, 1 of its own tenant."],
        ),
        (
            standing(waiting={ALICE: [Expected("job", 1.0, 5)], BOB: [Expected("b1", 1.0, 1)]}),
            [HAS, HAS, HAS],
            ["1 job comes before it, 0 of its own tenant."],
        ),
    ],
)  # fmt: skip
def test_why_a_job_waits(
    found: Standing, catalogues: list[Catalogue | None], reasons: list[str], config: Config
) -> None:
    assert explained(config, found, *catalogues).reasons == reasons


ROOM, NOT_ALICES = "has 0 of at most 2 jobs", "has not alice among its tenants"
FIRST_ONLY = "has not what Set.folder reads or writes: only the first one has that"
UNKNOWN = "has not what the job needs, which was not recorded: such a job goes to the first one"


@pytest.mark.parametrize(
    ("foreseen", "reason"),
    [
        (Foreseen("two", True), "It is given to two next, by a gate that runs."),
        (Foreseen("two", False), "It is left to two, with which it has ended sooner than with those that have room."),
    ],
)
def test_where_it_goes_is_told_where_it_is_known(foreseen: Foreseen, reason: str, config: Config) -> None:
    catalogues: dict[str, Catalogue | None] = {"one": HAS, "two": HAS, "three": None}
    assert explain(standing(), config, catalogues, {}, foreseen).reasons == [reason]


async def test_beside_a_gate_with_several_comfyuis(tmp_path: Path) -> None:
    async with several(tmp_path, settings={"gpu-1": "window = 1", "gpu-2": "window = 1"}) as world:
        file = world.gate.config_file
        running = [await submitted(world, slow()), await submitted(world, slow())]
        for prompt_id in running:
            await until(file, prompt_id, "running")
        waiting = await submitted(world, previewing(3))
        said = await jobs(file, "why", waiting)
        assert said.code == 0, said.err
        assert "gpu-1 and gpu-2 have no room." in said.out
        found = [orjson.loads((await jobs(file, "why", each, "--json")).out)["why"] for each in running]
        assert sorted(found) == [["gpu-1 runs it."], ["gpu-2 runs it."]]


@pytest.mark.parametrize(
    ("needs", "two", "words"),
    [
        (MODEL, HAS_NOT, [ROOM, "has not the model a.pt of Loader.name"]),
        (MODEL._replace(labels=("24gb",)), None, ["has not label 24gb", "does not answer"]),
        (MODEL._replace(labels=("48gb",)), None, ["has not label 48gb", "does not answer; has not label 48gb"]),
        (MODEL._replace(first_only=(("Set", "folder"),)), HAS, [ROOM, FIRST_ONLY]),
        (None, HAS, [ROOM, UNKNOWN]),
        (READS, None, ["has not a file that two has, which does not answer", "does not answer"]),
        (READS, HAS, [ROOM, "has 0 of at most 1 job, and its files"]),
        (
            Needs(files=((Folder.INPUT, UpstreamPath("tenants/alice/@two/x.png")),)),
            None,
            [f"{ROOM}, and its files", "does not answer"],
        ),
    ],
)
def test_what_each_comfyui_has_and_lacks(
    needs: Needs | None, two: Catalogue | None, words: list[str], config: Config
) -> None:
    lines = in_words(explained(config, standing(needs), HAS, two, HAS), 200.0).splitlines()[-3:]
    expected = zip(("one", "two", "three"), [*words, NOT_ALICES], strict=True)
    assert lines == [f"{name:<11}  {text}" for name, text in expected]


def test_a_file_that_is_away_may_have_a_copy(config: Config) -> None:
    stored = config.model_copy(update={"storage": StorageSettings(url="file:///srv/outputs")})
    lines = in_words(explained(stored, standing(READS), HAS, None, HAS), 200.0).splitlines()
    assert (
        "one          has not a file that two has, which does not answer, unless the storage has a copy that stands for it"
        in lines
    )


def test_a_drained_one_is_told_with_what_it_has(config: Config) -> None:
    why = explained(config, standing(drained=frozenset({"one", "two"})), HAS, HAS_NOT, None)
    lines = in_words(why, 200.0).splitlines()[-3:-1]
    assert lines == [
        "one          drained; has 0 of at most 2 jobs",
        "two          drained; has not the model a.pt of Loader.name",
    ]
    assert [each["drained"] for each in to_json(why)["comfyuis"]] == [True, True, False]


@pytest.mark.parametrize(
    ("stuck", "catalogues", "reasons"),
    [
        (["one"], [HAS, HAS_NOT, HAS], ["one has jobs waiting and runs none."]),
        (["one", "two"], [HAS, HAS, HAS], ["one and two have jobs waiting and run none."]),
        (["one"], [HAS, HAS, HAS], ["It is given to two next, by a gate that runs."]),
        (["two"], [None, HAS, HAS], ["one does not answer. two has jobs waiting and runs none."]),
    ],
)
def test_one_that_runs_nothing_is_no_place(
    stuck: list[str], catalogues: list[Catalogue | None], reasons: list[str], config: Config
) -> None:
    known = dict(zip(("one", "two", "three"), catalogues, strict=True))
    why = explain(standing(), config, known, {}, stuck=stuck)
    assert why.reasons == reasons
    assert [each["stuck"] for each in to_json(why)["comfyuis"]] == [name in stuck for name in known]
    assert f"{stuck[0]:<11}  stuck; has 0 of at most" in in_words(why, 200.0)


def test_jobs_that_go_elsewhere_are_not_counted(config: Config) -> None:
    waiting = {ALICE: [Expected("own", 1.0, 1), Expected("job", 1.0, 5)], BOB: [Expected("b", 1.0, 2)]}
    known = dict.fromkeys(("one", "two", "three"), HAS)
    for beside, before in (((), (1, 1)), (("own",), (0, 1)), (("own", "b"), (0, 0))):
        assert explain(standing(waiting=waiting), config, known, {}, beside=beside).before == before


def test_as_json(config: Config) -> None:
    why = explained(config, standing(models={"two": ["a.pt"]}, has={"two": 1}), HAS, HAS, None)
    document = to_json(why)
    assert (document["id"], document["state"], document["before"]) == ("job", "waiting", {"own": 0, "others": 0})
    assert document["comfyuis"][0] == {
        "name": "one",
        "answers": True,
        "lacks": None,
        "jobs": 0,
        "window": 2,
        "has_models": False,
        "has_files": False,
        "drained": False,
        "stuck": False,
    }
    assert document["comfyuis"][1] | {"jobs": 1, "has_models": True} == document["comfyuis"][1]
    assert document["comfyuis"][2]["answers"] is False
    assert in_words(why, 200.0).splitlines()[-2] == "two          has 1 of at most 1 job, and its models"
    assert to_json(explain(standing(job=JOB._replace(state=StoredState.FAILED)), config, {}, {}))["before"] is None


def test_who_has_its_files_is_told(config: Config) -> None:
    why = explained(config, standing(MODEL._replace(files=READS.files), models={"two": ["a.pt"]}), HAS, HAS, HAS)
    assert in_words(why, 200.0).splitlines()[-3:-1] == [
        "one          has 0 of at most 2 jobs",
        "two          has 0 of at most 1 job, and its models and files",
    ]
    upload = READS._replace(files=((Folder.INPUT, UpstreamPath("tenants/alice/x.png")),))
    why = explained(config, standing(upload), HAS, HAS, HAS)
    assert [each["has_files"] for each in to_json(why)["comfyuis"]] == [True, False, False]


async def test_beside_a_gate_with_one_comfyui(tmp_path: Path, comfy: StandIn) -> None:
    file, keys = write_config(tmp_path, comfy.url, more="[jobs]\nwindow = 1\n")
    async with served(file, keys) as gate:
        running = await submit(gate, slow())
        await until(file, running, "running")
        await submit(gate, previewing(1))
        waiting = await submit(gate, previewing(2))
        said = await jobs(file, "why", waiting)
        assert said.code == 0, said.err
        assert "1 job comes before it, 1 of its own tenant." in said.out
        assert "default      has 1 of at most 1 job\n" in said.out
        found = orjson.loads((await jobs(file, "why", running, "--json")).out)
        assert found["why"] == ["default runs it."]
    await comfy.stop()
    assert "default does not answer." in (await jobs(file, "why", waiting)).out
    assert (await jobs(file, "why", "none")).err == "There is no job none.\n"

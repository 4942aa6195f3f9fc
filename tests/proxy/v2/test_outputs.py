"""What jobs made, as it is measured: the same whoever asks, from disk or from ComfyUI, once, and of the tenant's own alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from policy.v2.outputs import Shown, find_shown
from proxy.files.directories import Directories
from proxy.files.tenant_files import TenantFiles
from proxy.http.errors import UpstreamUnavailable
from proxy.http.replies import FileEdits
from proxy.limits.heavy_work import HeavyWork
from proxy.persistence.operations import Database, Operation, Statement
from proxy.upstream.client import Upstream
from proxy.v2 import file_measuring
from proxy.v2.file_measuring import FileMeasuring, Measured, measure_bytes
from proxy.v2.job_operations import read_job
from standin import StandIn
from tests.harness import Running, running_gate
from tests.policy.media.files import own
from tests.proxy.v2.following import finished, following, saving, slow, submit

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
PICTURE = b"picture" * 1000


def rows(prompt_id: str) -> Operation[list[tuple[Any, ...]]]:
    return (yield Statement("SELECT asset_id, size_bytes, hash, body FROM assets WHERE prompt_id = ?", (prompt_id,)))


def database(gate: Running) -> Database:
    return gate.gate._state


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    for name in ("output/tenants/alice", "temp"):
        (folder / name).mkdir(parents=True)
    return folder


async def measured_at(upstream: str, directory: Path | None, path: str, folder: Folder = Folder.OUTPUT) -> Any:
    comfy = Upstream(upstream, 5.0)
    files = FileMeasuring(comfy, TenantFiles(comfy, HeavyWork()), Directories(directory))
    try:
        return await files.measure(ALICE, folder, UpstreamPath(path))
    finally:
        files.stop()
        await comfy.stop()


async def test_a_file_on_disk(base: Path) -> None:
    (base / "output/tenants/alice/a.png").write_bytes(PICTURE)
    found = await measured_at("http://127.0.0.1:9", base, "tenants/alice/a.png")
    changed_ns = (base / "output/tenants/alice/a.png").stat().st_mtime_ns
    stamp = f"{changed_ns:x}-{len(PICTURE):x}"
    assert found == Measured(len(PICTURE), f"blake3:{blake3(PICTURE).hexdigest()}", stamp)
    assert found == measure_bytes(PICTURE)._replace(stamp=stamp)


async def test_what_is_not_seen_on_disk_is_asked_of_comfyui(comfy: StandIn, base: Path) -> None:
    file = Path(comfy.folders.base) / "output/tenants/alice/a.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(PICTURE)
    stamp = f"{file.stat().st_mtime_ns:x}-{len(PICTURE):x}"
    # A disk that should have had it would never have what ComfyUI says of it.
    for directory, told in ((None, stamp), (base, "")):
        found = await measured_at(comfy.url, directory, "tenants/alice/a.png")
        assert found == measure_bytes(PICTURE)._replace(stamp=told)
        assert await measured_at(comfy.url, directory, "tenants/alice/b.png") is None


async def test_links_are_not_followed(comfy: StandIn, base: Path) -> None:
    secret = base / "secret"
    secret.write_bytes(b"canary")
    (base / "output/tenants/alice/a.png").symlink_to(secret)
    assert await measured_at(comfy.url, base, "tenants/alice/a.png") is None


async def test_comfyui_that_is_away_says_nothing_of_a_file(base: Path) -> None:
    with pytest.raises(UpstreamUnavailable):
        await measured_at("http://127.0.0.1:9", base, "tenants/alice/b.png")


@pytest.mark.parametrize("is_seen", [True, False], ids=["on disk", "from ComfyUI"])
async def test_sizes_and_hashes_are_those_of_the_files(tmp_path: Path, comfy: StandIn, is_seen: bool) -> None:
    more = f'directory = "{comfy.folders.base}"' if is_seen else ""
    async with running_gate(tmp_path, comfy.url, upstream_more=more) as gate:
        job = await submit(gate, slow(0.2, 4, prefix="sub/é x"))
        async with following(gate, job) as stream:
            await stream.rest()
        shown = await gate.json("GET", f"/api/v2/jobs/{job}", "alice")
    by_node = {each["node_id"]: each for each in shown["outputs"]}
    saved = next((Path(comfy.folders.base) / "output/tenants/alice").rglob("*.png")).read_bytes()
    assert (by_node["2"]["name"], by_node["2"]["size_bytes"]) == ("é x_00001_.png", len(saved))
    assert by_node["2"]["hash"] == f"blake3:{blake3(own(saved)).hexdigest()}"
    temp = (Path(comfy.folders.base) / "temp" / by_node["4"]["name"]).read_bytes()
    assert by_node["4"]["hash"] == f"blake3:{blake3(own(temp)).hexdigest()}"
    told = {each["id"]: each["hash"] for each in stream.of("output")}
    assert told == {each["id"]: each["hash"] for each in shown["outputs"]}


async def test_results_are_kept_once_whoever_asks(gate: Running) -> None:
    await gate.json("POST", "/prompt", "alice", json={"prompt": saving()})
    job = (await gate.json("GET", "/api/v2/jobs", "alice"))["jobs"][0]["id"]
    while (await gate.json("GET", f"/history/{job}", "alice")) == {}:
        await asyncio.sleep(0.01)
    assert await database(gate).read(rows, job) == []
    path = f"/api/v2/jobs/{job}"
    shown = await asyncio.gather(*(gate.json("GET", path, "alice") for _ in range(5)))
    assert all(each["outputs"] == shown[0]["outputs"] for each in shown)
    ((asset_id, size, digest, body),) = await database(gate).read(rows, job)
    assert [(each["id"], each["size_bytes"], each["hash"]) for each in shown[0]["outputs"]] == [
        (asset_id, size, digest)
    ]
    assert body is None


async def test_while_comfyui_is_away_results_are_listed_without_their_sizes(gate: Running, comfy: StandIn) -> None:
    job = (await gate.json("POST", "/prompt", "alice", json={"prompt": saving()}))["prompt_id"]
    while (await gate.json("GET", f"/history/{job}", "alice")) == {}:
        await asyncio.sleep(0.01)
    port = comfy.port
    await comfy.stop()
    away = await gate.json("GET", f"/api/v2/jobs/{job}", "alice")
    assert [(each["size_bytes"], each["hash"]) for each in away["outputs"]] == [(0, None)]
    await comfy.start(port=port)
    back = await gate.json("GET", f"/api/v2/jobs/{job}", "alice")
    assert [each["id"] for each in back["outputs"]] == [each["id"] for each in away["outputs"]]
    assert back["outputs"][0]["hash"] is not None
    ((_, size, digest, _),) = await database(gate).read(rows, job)
    assert (size, digest) == (back["outputs"][0]["size_bytes"], back["outputs"][0]["hash"])


async def test_a_neighbours_preview_is_not_measured(gate: Running, comfy: StandIn) -> None:
    """Its name may be known or guessed, and a node may show it."""
    outputs = gate.gate.dependencies.v2.outputs
    job = await submit(gate, slow(0.1, 2), "mallory")
    theirs = next(each for each in (await finished(gate, job, "mallory"))["outputs"] if each["node_id"] == "4")
    own = await submit(gate, saving())
    await finished(gate, own)
    shown = find_shown("9", {"images": [{"filename": theirs["name"], "subfolder": "", "type": "temp"}]})
    assert await outputs.measure_shown(MALLORY, job, shown) != []
    assert await outputs.measure_shown(ALICE, own, shown) == []
    # Nor does a job of another tenant's take anything.
    assert await outputs.measure_shown(ALICE, job, [Shown("9", 0, "text", "text/plain", text="x")]) == []


async def test_who_asks_for_an_id_while_a_neighbour_measures_it_is_told_nothing_of_it(gate: Running) -> None:
    """The id was the neighbour's, and is its own by now."""
    job = (await gate.json("POST", "/prompt", "alice", json={"prompt": saving()}))["prompt_id"]
    while (await gate.json("GET", f"/history/{job}", "alice")) == {}:
        await asyncio.sleep(0.01)
    outputs = gate.gate.dependencies.v2.outputs
    found = await database(gate).read(read_job, ALICE, job)
    assert found is not None
    again = found.row._replace(tenant=MALLORY, sequence=found.row.sequence + 1)
    theirs, own = await asyncio.gather(outputs.measure(ALICE, found.row), outputs.measure(MALLORY, again))
    assert [len(theirs[0]), len(own[0])] == [1, 0]


async def test_names_that_nobody_can_have_are_left_out(gate: Running) -> None:
    job = await submit(gate, saving())
    await finished(gate, job)
    shown = [Shown("9", 0, "image", "image/png", Folder.OUTPUT, name) for name in ("../x.png", "/etc/passwd", "a/../b")]
    assert await gate.gate.dependencies.v2.outputs.measure_shown(ALICE, job, shown) == []


async def test_one_file_of_a_tenant_at_a_time(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[str] = []
    most = 0
    read = file_measuring._read

    def counted(root: Path, path: UpstreamPath, edits_of: FileEdits) -> Measured | None:
        nonlocal most
        running.append(path)
        most = max(most, len(running))
        try:
            return read(root, path, edits_of)
        finally:
            running.remove(path)

    monkeypatch.setattr(file_measuring, "_read", counted)
    for number in range(100):
        (base / f"output/tenants/alice/{number}.png").write_bytes(PICTURE)
    upstream = Upstream("http://127.0.0.1:9", 1.0)
    files = FileMeasuring(upstream, TenantFiles(upstream, HeavyWork()), Directories(base))
    paths = [UpstreamPath(f"tenants/alice/{number}.png") for number in range(100)]
    found = await asyncio.gather(*(files.measure(ALICE, Folder.OUTPUT, path) for path in paths))
    assert {each and each._replace(stamp="") for each in found} == {measure_bytes(PICTURE)}
    assert most == 1
    files.stop()
    await upstream.stop()

"""What users of the SDKs do, as short rows that run against any server of the API: data for a table, and a test of the gate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from tests.contract.driver import node
from tests.v2.bodies import Judges, bodies_of
from tests.v2.conversation import frames_of
from tests.v2.recorder import Recorder
from tests.v2.report import BY_LUCK
from tests.v2.sdk import KINDS, Sdk, SdkError
from tests.v2.world import as_bytes, decoded, new_picture, pixels, saving_new, slow, with_picture

ODD_NAME = 'sub dir/größe "1".png'


class Differs(Exception):
    """What the server does instead, in words for the table."""


@dataclass(frozen=True)
class Row:
    """call: as the SDK's users write it. what: what they expect. kinds: the SDKs that have it."""

    call: str
    what: str
    run: Callable[[Sdk, Recorder], Awaitable[None]]
    kinds: tuple[str, ...] = KINDS


ROWS: list[Row] = []


def row(call: str, what: str, *kinds: str) -> Callable[[Callable[[Sdk, Recorder], Awaitable[None]]], None]:
    def add(run: Callable[[Sdk, Recorder], Awaitable[None]]) -> None:
        ROWS.append(Row(call, what, run, kinds or KINDS))

    return add


def expect(is_so: bool, instead: str) -> None:
    if not is_so:
        raise Differs(instead)


async def outcome_of(one: Row, sdk: Sdk, recorder: Recorder) -> str:
    """ "works", or what happened instead."""
    try:
        await one.run(sdk, recorder)
    except Differs as instead:
        return str(instead)
    except SdkError as error:
        if error.bases[0] == "JobFailed":
            return f"the job ends as `{error.message.rpartition(' ')[2]}`"
        return f"`{error.code}` ({error.status})" if error.status else f"raises {error.bases[0]}"
    return "works"


LOST = "the job ends as `expired`"
"""Of a job that has just succeeded. It is a matter of luck, so it has a row of its own, and is nobody else's outcome."""
MAX_LOST = 8
ENDS = ("job.wait(), job.result()", "a job that has succeeded is not told as `expired`")
SCHEMAS = ("every answer", "as the SDKs' own schemas have it")


async def outcomes(sdk: Sdk, recorder: Recorder, judges: Judges) -> dict[tuple[str, str], str]:
    """Of all rows that this SDK has, by call and what is expected; and whether all answers were well formed."""
    found, lost = {}, 0
    for one in ROWS:
        for _ in range(MAX_LOST if sdk.kind in one.kinds else 0):
            found[one.call, one.what] = outcome = await outcome_of(one, sdk, recorder)
            if outcome != LOST:
                break
            lost += 1
    bodies = bodies_of(recorder.exchanges())
    bad = sum(bool(judges.mistakes_in([body])) for body in bodies)
    shapes = "works" if not bad else "most are not" if 2 * bad > len(bodies) else "some are not"
    return found | {ENDS: BY_LUCK if lost else "works", SCHEMAS: shapes}


@row("client.run(workflow)", "runs to its end, and has its output")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("run", graph=saving_new())
    expect(len(job["outputs"]) == 1, "has no output")


@row("output.to_bytes(), .to_file(), .to_bytes(range=…)", "the bytes, or a part of them")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("run", graph=saving_new())
    which = {"job": job["id"], "output": job["outputs"][0]["id"]}
    whole = decoded(await sdk.call("read", **which))
    expect(decoded(await sdk.call("read", range=[1, 3], **which)) == whole[1:4], "another part")


@row("output.size_bytes", "the true size")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("run", graph=saving_new())
    (output,) = job["outputs"]
    whole = decoded(await sdk.call("read", job=job["id"], output=output["id"]))
    expect(output["size_bytes"] == len(whole), f"says {output['size_bytes']}")


@row("output.type of a text", "`text`, with the text for its bytes")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    graph = {"1": node("PrimitiveString", value="shown"), "2": node("PreviewAny", source=["1", 0])}
    job = await sdk.call("run", graph=graph)
    expect([each["type"] for each in job["outputs"]] == ["text"], "the text is left out")


@row("output.get_download_url(), asset.get_download_url()", "an address of the bytes")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("run", graph=saving_new())
    link = await sdk.call("link", job=job["id"], output=job["outputs"][0]["id"])
    expect(link["url"].startswith(f"{recorder.url}/"), "leads elsewhere")


@row("client.assets.from_bytes(…)", "is uploaded, and an input of a job")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    picture = new_picture()
    job = await sdk.call("run", graph=with_picture({"$bytes": as_bytes(picture, "photo.png")}))
    read = await sdk.call("read", job=job["id"], output=job["outputs"][0]["id"])
    expect(pixels(decoded(read)) == pixels(picture), "is another picture")


@row("client.assets.from_bytes(…) once more", "is found by its hash, and not sent again")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    given = as_bytes(new_picture(), "photo.png")
    await sdk.call("upload", **given)
    expect((await sdk.call("upload", **given))["created_new"] is False, "is sent again")


@row("… under another name", "has that name")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    picture = new_picture()
    await sdk.call("upload", **as_bytes(picture, "first.png"))
    second = await sdk.call("upload", **as_bytes(picture, "second.png"))
    shown = (await sdk.call("asset", asset=second["id"]))["file_path"]
    expect(shown == "second.png", f"is called `{shown}`")


@row("client.assets.from_bytes(filename=…)", "a name with a folder, quotes, spaces and umlauts")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    picture = new_picture()
    job = await sdk.call("run", graph=with_picture({"$bytes": as_bytes(picture, ODD_NAME)}))
    shown = (await sdk.call("workflow", job=job["id"]))["graph"]["1"]["inputs"]["image"]
    expect(shown.endswith(ODD_NAME.rpartition("/")[2]), f"is called `{shown}`")


@row("client.assets.get(id), .delete(id)", "is there, then is not")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    asset = await sdk.call("upload", **as_bytes(new_picture(), "photo.png"))
    await sdk.call("asset", asset=asset["id"])
    await sdk.call("delete", asset=asset["id"])
    expect((await sdk.refused("asset", asset=asset["id"])).status == 404, "is there still")


@row("client.assets.delete(output.id)", "an output is an asset")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("run", graph=saving_new())
    await sdk.call("delete", asset=job["outputs"][0]["id"])


@row("an output, or a preview, as input", "is loaded by the next job")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    graph = saving_new("sub/v2") | {"3": node("PreviewImage", images=["1", 0])}
    job = await sdk.call("run", graph=graph)
    for output in job["outputs"]:
        await sdk.call("run", graph=with_picture({"$asset": output["id"]}))


@row("job.events()", "progress, the outputs, then the end")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("submit", graph=slow(seconds=1.5, steps=15))
    events = sdk.begin("events", job=job["id"])
    await events.value()
    kinds = events.kinds()
    expect("progress" in kinds, "no progress")
    expect(kinds[-1] == "statusChange", "the end is not told")
    expect("outputReady" in kinds, "no outputs")


@row("job.events(): progress", "counts the nodes of the workflow, and never falls")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("submit", graph=slow(seconds=1.5, steps=15))
    await sdk.begin("events", job=job["id"]).value()
    (stream,) = recorder.exchanges("GET", f"/api/v2/jobs/{job['id']}/events")
    told = [_parsed(frame.data) for frame in frames_of(stream.body) if frame.event == "progress"]
    values = [each["value"] for each in told]
    expect(values == sorted(values), "falls")
    totals = {each["nodes_total"] for each in told}
    expect(totals == {3}, f"says {' and '.join(map(str, sorted(totals)))} nodes of 3")


@row("job.events() of two clients", "each sees all of it")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("submit", graph=slow(seconds=1.5, steps=15))
    streams = [sdk.begin("events", job=job["id"]) for _ in range(2)]
    for stream in streams:
        await stream.value()
        expect(stream.kinds().count("progress") > 2, "one of them sees no progress")


@row("job.cancel() of one that waits", "is `canceled`")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    running = await sdk.call("submit", graph=slow())
    waiting = await sdk.call("submit", graph=saving_new())
    await sdk.call("cancel", job=waiting["id"])
    status = (await sdk.call("wait", job=waiting["id"]))["status"]
    await sdk.call("cancel", job=running["id"])
    await sdk.call("wait", job=running["id"])
    expect(status == "canceled", f"is `{status}`")


@row("job.cancel() of one that runs", "is `canceling`, then `canceled`")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("submit", graph=slow())
    while (await sdk.call("get", job=job["id"]))["status"] == "queued":
        pass
    seen = [(await sdk.call("cancel", job=job["id"]))["status"]]
    while seen[-1] in ("canceling", "running"):
        seen.append((await sdk.call("get", job=job["id"]))["status"])
    expect(seen[-1] == "canceled", f"ends as `{seen[-1]}`")
    expect("running" not in seen, "is `running` again in between")


@row("job.error", "names node and class")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    graph = {
        "1": node("RegexReplace", string="a", regex_pattern="(", replace=""),
        "2": node("PreviewAny", source=["1", 0]),
    }
    job = await sdk.call("submit", graph=graph)
    ended = await sdk.call("wait", job=job["id"])
    # Comfy-Org's server says `expired` of one that ends between its two questions to ComfyUI, for the history and for the queue.
    expect(ended["status"] == "failed", f"ends as `{ended['status']}`")
    error = ended["error"]
    expect((error["node_id"], error["class_type"]) == ("1", "RegexReplace"), "names another")


@row("job.get_workflow()", "the graph as it was submitted")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    graph = saving_new()
    job = await sdk.call("run", graph=graph)
    expect(await sdk.call("workflow", job=job["id"]) == {"graph": graph, "format": "api"}, "is another")


@row("client.submit(idempotency_key=…) twice", "the second is refused")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    key = f"key-{new_picture().hex()[-40:]}"
    await sdk.call("submit", graph=saving_new(), idempotency_key=key)
    error = await sdk.refused("submit", graph=saving_new(), idempotency_key=key)
    expect(error.code == "idempotency_key_reuse", f"`{error.code}`")


@row("client.submit(metadata=…), job.metadata", "labels are kept", "sync", "async")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    job = await sdk.call("submit", graph=saving_new(), metadata={"client": "acme"})
    shown = (await sdk.call("get", job=job["id"]))["metadata"]
    expect(shown == {"client": "acme"}, f"are `{shown}`")


@row("client.list_jobs()", "every job, with its time", "sync", "async")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    ids = [(await sdk.call("run", graph=saving_new()))["id"] for _ in range(3)]
    listed = await sdk.call("list", limit=2)
    expect(set(ids) <= {each["id"] for each in listed}, "ends with the first page")
    expect(all(each["create_time"] for each in listed), "without times")


@row("client.list_jobs(metadata=…)", "the jobs with these labels", "sync", "async")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    label = {"run": new_picture().hex()[-40:]}
    job = await sdk.call("submit", graph=saving_new(), metadata=label)
    listed = await sdk.call("list", metadata=label)
    expect([each["id"] for each in listed] == [job["id"]], f"finds {len(listed)}")


@row("a workflow that ComfyUI does not take", "`InvalidWorkflow`, with the nodes in `details`")
async def _(sdk: Sdk, recorder: Recorder) -> None:
    graph = saving_new()
    del graph["2"]["inputs"]["filename_prefix"]
    error = await sdk.refused("submit", graph=graph)
    expect(error.code == "invalid_workflow", f"`{error.code}` ({error.status})")
    expect("2" in (error.details or {}).get("node_errors", {}), "without the nodes")


def _parsed(text: str) -> dict[str, float]:
    found: dict[str, float] = orjson.loads(text)
    return found

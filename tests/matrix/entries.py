"""How each row of the route table is called for a thing, by its name alone. A row without an entry fails the matrix."""

from __future__ import annotations

import json
from collections.abc import Callable

import aiohttp

from policy.routes import Route
from policy.rules.logs import LINE
from policy.table import ROUTES
from tests.contract.driver import Graph, loading, node, png
from tests.matrix.calls import Call, Entry, ids_of, of_each_job, plain
from tests.matrix.function_calls import CALLS
from tests.matrix.things import Things

PICTURE = png((120, 120, 120))


def upload(name: str, **fields: str) -> Callable[[], aiohttp.FormData]:
    def make() -> aiohttp.FormData:
        form = aiohttp.FormData(quote_fields=False)
        for key, value in fields.items():
            form.add_field(key, value)
        form.add_field("image", PICTURE, filename=name, content_type="image/png")
        return form

    return make


def asset_form(file_path: str, data: bytes, **fields: str) -> Callable[[], aiohttp.FormData]:
    """As Comfy API v2 has it: what is said of a file comes before it."""

    def make() -> aiohttp.FormData:
        form = aiohttp.FormData(quote_fields=False)
        for key, value in {"file_path": file_path, **fields}.items():
            form.add_field(key, value)
        form.add_field("file", data, filename="x.png", content_type="image/png")
        return form

    return make


def _join(root: str, folder: str) -> str:
    return f"{root}/{folder}".strip("/")


def _view(things: Things) -> list[Call]:
    saved = f"filename={things.output}&subfolder={_join(things.root, things.output_folder)}"
    uploaded = f"filename={things.upload}&subfolder={things.root}&type=input"
    return [
        Call(f"/view?{saved}&type=output"),
        Call(f"/view?{saved}&type=output&preview=webp%3B80"),
        Call(f"/view?{saved}&channel=rgb"),
        Call(f"/view?{uploaded}"),
        Call(f"/view?filename={things.upload}%20%5Binput%5D&subfolder={things.root}"),
        Call(f"/view?filename={things.upload}&subfolder={_join(things.root, things.folder)}&type=input"),
        Call(f"/view?filename={things.temp}&type=temp"),
        Call(f"/view?filename={things.temp}&type=temp&subfolder="),
    ]


def _mask(things: Things) -> list[Call]:
    original = {"filename": things.upload, "subfolder": things.root, "type": "input"}
    return [
        Call(
            "/upload/mask",
            form=upload(f"{things.copied_upload}", type="input", original_ref=json.dumps(original), overwrite="true"),
        )
    ]


def _prompts(things: Things) -> list[Call]:
    """Workflows that name a foreign file: ComfyUI finds none."""
    graphs: list[Graph] = [
        loading(_join(things.root, things.upload)),
        loading(f"{_join(things.root, things.folder)}/{things.upload}"),
        loading(f"{_join(things.root, things.output_folder)}/{things.output} [output]"),
        loading(f"{things.temp} [temp]"),
    ]
    return [Call("/prompt", {"prompt": graph, "client_id": things.client_id}) for graph in graphs]


def _v2_workflows(things: Things) -> list[Call]:
    """The same, and a workflow with an asset of somebody's in it, which uses it until somebody ends it."""
    reference = {"__type": "core/ASSET", "info": {"id": things.asset, "hash": None, "file_path": things.upload}}
    graphs = [call.document["prompt"] for call in _prompts(things)]
    by_id = loading("x.png") | {"2": node("SlowProgress", image=["1", 0], seconds=3600.0, steps=10_000)}
    by_id["3"] = node("PreviewImage", images=["2", 0])
    for each in by_id.values():
        if "image" in each["inputs"] and each["class_type"].startswith("LoadImage"):
            each["inputs"]["image"] = reference
    return [Call("/v2/jobs", {"workflow": graph}) for graph in [*graphs, by_id]]


def _of_each_asset(path: str) -> Callable[[Things], list[Call]]:
    return lambda things: [Call(f"/v2/assets/{each}{path}") for each in (things.asset, things.kept_asset)]


def _userdata(things: Things) -> str:
    # An admin's userdata is the user's own folder, where tenants' folders are; what is a path there is data in one segment.
    return f"{things.root.replace('/', '%2F')}%2F{things.userdata}" if things.root else things.userdata


ENTRIES: dict[str, Entry] = {
    "GET /prompt": plain("/prompt"),
    "POST /prompt": Entry(_prompts, (200, 200, 200, 200), changes=True),
    "GET /queue": Entry(lambda things: [Call("/queue")], shows=lambda things: [things.running, things.pending]),
    "POST /queue": Entry(
        lambda things: [Call("/queue", {"delete": ids_of(things)}), Call("/queue", {"delete": []})],
        (200, 200),
        changes=True,
    ),
    "POST /interrupt": Entry(
        lambda things: [Call("/interrupt", {"prompt_id": each}) for each in (things.finished, things.pending)],
        (200, 200),
        changes=True,
    ),
    "POST /free": Entry(lambda things: [Call("/free", {"unload_models": False})], (403,)),
    "GET /history": Entry(
        lambda things: [Call("/history"), Call("/history?max_items=5"), Call("/history?offset=0&max_items=1")],
        (200, 200, 200),
        shows=lambda things: [things.finished, things.output, things.temp],
    ),
    "GET /history/{prompt_id}": Entry(
        of_each_job("/history/{id}"), (200, 200, 200), shows=lambda things: [things.finished, things.output]
    ),
    "POST /history": Entry(lambda things: [Call("/history", {"delete": ids_of(things)})], changes=True),
    "GET /api/jobs": Entry(
        lambda things: [
            Call("/jobs"),
            Call("/jobs?status=pending,in_progress&limit=200"),
            Call("/jobs?status=completed,failed,cancelled&limit=64&offset=0"),
            Call("/jobs?sort_by=execution_duration&sort_order=asc&limit=2"),
        ],
        (200, 200, 200, 200),
        shows=lambda things: [*ids_of(things), things.output],
    ),
    "GET /api/jobs/{job_id}": Entry(
        of_each_job("/jobs/{id}"), (200, 200, 200), shows=lambda things: [*ids_of(things), things.output, things.temp]
    ),
    "POST /api/jobs/cancel": Entry(
        lambda things: [
            Call("/jobs/cancel", {"job_ids": [things.pending]}),
            Call("/jobs/cancel", {"job_ids": [things.finished, things.pending]}),
            Call("/jobs/cancel", {"job_ids": [things.pending, things.client_id]}),
        ],
        (200, 200, 400),
        changes=True,
    ),
    "POST /api/jobs/{job_id}/cancel": Entry(
        lambda things: [Call(f"/jobs/{each}/cancel") for each in (things.finished, things.pending)],
        (200, 200),
        changes=True,
    ),
    "POST /api/v2/jobs": Entry(
        _v2_workflows,
        (201, 201, 201, 422, 201),  # its preview went with the history just before
        changes=True,
    ),
    "GET /api/v2/jobs": Entry(
        lambda things: [
            Call("/v2/jobs"),
            Call("/v2/jobs?status=running,queued&limit=1"),
            Call(f"/v2/jobs?metadata[owner]={things.client_id}"),
        ],
        (200, 200, 200),
        shows=ids_of,
    ),
    "GET /api/v2/jobs/{job_id}": Entry(of_each_job("/v2/jobs/{id}"), (200, 200, 200), shows=ids_of),
    "GET /api/v2/jobs/{job_id}/workflow": Entry(
        of_each_job("/v2/jobs/{id}/workflow"), (200, 200, 200), shows=lambda things: [things.upload]
    ),
    "GET /api/v2/jobs/{job_id}/events": Entry(lambda things: [Call(f"/v2/jobs/{things.finished}/events")]),
    "POST /api/v2/jobs/{job_id}/cancel": Entry(
        lambda things: [Call(f"/v2/jobs/{each}/cancel") for each in (things.finished, things.running)],
        (404, 200),  # it was deleted from the history just before
        changes=True,
    ),
    # Bytes that are not those of the hash, whether somebody has those or not.
    "POST /api/v2/assets": Entry(
        lambda things: [
            Call(
                "/v2/assets",
                form=asset_form(things.upload, PICTURE, expected_hash=things.hash),
                said=f"{things.upload} {things.hash}",
            )
        ],
        (409,),
    ),
    "POST /api/v2/assets/from-hash": Entry(
        lambda things: [Call("/v2/assets/from-hash", {"hash": things.hash, "file_path": things.upload})],
        (200,),
        shows=lambda things: [things.hash, things.asset],
        changes=True,
    ),
    "GET /api/v2/assets/by-hash/{hash}": Entry(
        lambda things: [Call(f"/v2/assets/by-hash/{things.hash}")], shows=lambda things: [things.hash]
    ),
    "GET /api/v2/assets/{asset_id}": Entry(
        _of_each_asset(""), (200, 200), shows=lambda things: [things.asset, things.kept_asset, things.upload]
    ),
    "GET /api/v2/assets/{asset_id}/content": Entry(_of_each_asset("/content"), (200, 200)),
    # A job that waits or runs uses one of two records of the same file.
    "DELETE /api/v2/assets/{asset_id}": Entry(_of_each_asset(""), (409, 409), changes=True),
    # The upgrade itself is tried apart (test_matrix.py); without one the row refuses.
    "GET /ws": Entry(lambda things: [Call(f"/ws?clientId={things.client_id}")], (400,)),
    "POST /upload/image": Entry(
        lambda things: [
            Call("/upload/image", form=upload(things.copied_upload)),
            Call(
                "/upload/image",
                form=upload(things.copied_upload, subfolder=things.folder, overwrite="true"),
                said=things.folder,
            ),
            Call("/upload/image", form=upload(things.copied_upload, type="output", overwrite="1")),
        ],
        (200, 200, 200),
        changes=True,
    ),
    "POST /upload/mask": Entry(_mask, changes=True),
    "GET /view": Entry(_view, (200,) * 8),
    "GET /view_metadata/{folder_name}": Entry(
        lambda things: [Call(f"/view_metadata/checkpoints?filename={things.upload}")], (404,)
    ),
    "GET /internal/files/{directory_type}": plain(
        "/internal/files/input", "/internal/files/output", "/internal/files/temp"
    ),
    "GET /users": plain("/users"),
    "POST /users": Entry(lambda things: [Call("/users", {"username": things.client_id})], (403,)),
    "GET /settings": plain("/settings", shows=lambda things: [things.setting]),
    "GET /settings/{id}": Entry(
        lambda things: [Call(f"/settings/{things.setting}")], shows=lambda things: ["of " + things.client_id]
    ),
    "POST /settings": Entry(lambda things: [Call("/settings", {things.copied_setting: 1})], changes=True),
    "POST /settings/{id}": Entry(lambda things: [Call(f"/settings/{things.copied_setting}", raw=b"2")], changes=True),
    "GET /userdata": Entry(
        lambda things: [
            Call("/userdata?dir=workflows"),
            Call("/userdata?dir=workflows&recurse=true&split=true"),
            Call("/userdata?dir=.&recurse=true"),
            Call(f"/userdata?dir={things.folder}"),
        ],
        (200, 200, 200, 404),
        shows=lambda things: [things.userdata.rpartition("%2F")[2]],
    ),
    "GET /v2/userdata": Entry(
        lambda things: [Call("/v2/userdata"), Call("/v2/userdata?path=workflows"), Call("/v2/userdata?path=nothing")],
        (200, 200, 404),
        shows=lambda things: [things.userdata.rpartition("%2F")[2]],
        varies=True,  # times of writing
    ),
    "GET /userdata/{file}": Entry(
        lambda things: [Call(f"/userdata/{_userdata(things)}")], shows=lambda things: ["of " + things.client_id]
    ),
    "POST /userdata/{file}": Entry(
        lambda things: [
            Call(f"/userdata/{things.copied_userdata}", raw=b"{}"),
            Call(f"/userdata/{things.copied_userdata}?overwrite=false", raw=b"{}"),
        ],
        (200, 409),
        changes=True,
    ),
    "DELETE /userdata/{file}": Entry(lambda things: [Call(f"/userdata/{_userdata(things)}")], (204,), changes=True),
    "POST /userdata/{file}/move/{dest}": Entry(
        lambda things: [
            Call(f"/userdata/{_userdata(things)}/move/stolen.json"),
            Call("/userdata/workflows/move/stolen-folder" if things.root else f"/userdata/{things.folder}/move/stolen"),
        ],
        (404, 404),  # it was deleted just before
        changes=True,
    ),
    "GET /object_info": Entry(lambda things: [Call("/object_info")]),
    "GET /object_info/{node_class}": Entry(
        lambda things: [Call("/object_info/LoadImage"), Call("/object_info/SaveImage"), Call("/object_info/Nothing")],
        (200, 200, 200),
    ),
    "GET /models": plain("/models"),
    "GET /models/{folder}": plain("/models/checkpoints"),
    "GET /embeddings": plain("/embeddings"),
    "GET /experiment/models": plain("/experiment/models"),
    "GET /experiment/models/{folder}": plain("/experiment/models/checkpoints"),
    "GET /experiment/models/preview/{folder}/{path_index}/{filename}": Entry(
        lambda things: [Call(f"/experiment/models/preview/checkpoints/0/{things.upload}")], (404,)
    ),
    "GET /system_stats": plain("/system_stats", varies=True),
    "GET /internal/logs/raw": Entry(
        lambda things: [Call("/internal/logs/raw")], shows=lambda things: [] if things.root else [LINE]
    ),
    "PATCH /internal/logs/subscribe": Entry(
        lambda things: [Call("/internal/logs/subscribe", {"clientId": things.client_id, "enabled": True})]
    ),
    "GET /internal/folder_paths": plain("/internal/folder_paths"),
}


def _generic(route: Route) -> Entry:
    """A row whose parameters name no thing of a tenant's, or that refuses tenants whatever they name: one call, any outcome but the same."""
    path = route.path
    for name in ("{hash}", "{id}", "{pack}"):
        path = path.replace(name, "{asset}")
    path = path.replace("{file...}", "{upload}")
    return Entry(lambda things: [Call(path.format(asset=things.asset, upload=things.upload))], (0,))


# Named one by one: a new row has to be thought of.
_NAMELESS = (
    "GET /global_subgraphs",
    "GET /global_subgraphs/{id}",
    "GET /node_replacements",
    "GET /workflow_templates",
    "GET /api/workflow_templates/{pack}/{file...}",
    "GET /i18n",
    "GET /extensions",
    "GET /features",
    "GET /internal/logs",
    "GET /api/assets",
    "POST /api/assets",
    "POST /api/assets/from-hash",
    "GET /api/assets/hash/{hash}",
    "GET /api/assets/tags/refine",
    "GET /api/assets/seed/status",
    "POST /api/assets/seed",
    "POST /api/assets/seed/cancel",
    "POST /api/assets/prune",
    "GET /api/assets/{id}",
    "PUT /api/assets/{id}",
    "DELETE /api/assets/{id}",
    "GET /api/assets/{id}/content",
    "POST /api/assets/{id}/tags",
    "DELETE /api/assets/{id}/tags",
    "GET /api/tags",
    "POST /api/assets/download",
    "GET /",
    "GET /index.html",
    "GET /favicon.ico",
    "GET /materialdesignicons.min.css",
    "GET /user.css",
    "GET /assets/{file...}",
    "GET /cursor/{file...}",
    "GET /fonts/{file...}",
    "GET /scripts/{file...}",
    "GET /lib/{file...}",
    "GET /extensions/{file...}",
    "GET /templates/{file...}",
    "GET /docs/{file...}",
)

ENTRIES |= CALLS
ENTRIES |= {route.name: _generic(route) for route in ROUTES if route.name in _NAMELESS}

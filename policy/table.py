"""Every route of ComfyUI that the gate knows, area by area: running, files, users, catalogue, inside, assets, web UI."""

from __future__ import annotations

from typing import Any

from policy.passed_calls import unchanged
from policy.principal import Scope
from policy.routes import (
    PATIENT_S,
    UNCHANGED,
    AdminOnly,
    Body,
    Budget,
    CachedReply,
    Caching,
    Deny,
    Idempotency,
    MultiCall,
    Prefix,
    RelayWebSocket,
    Rewrite,
    Route,
    RouteTable,
    RunFunction,
    SendFile,
    ShowDocs,
    ShowJob,
    StreamEvents,
    TenantRule,
    always,
)
from policy.rules import (
    catalog,
    files,
    functions,
    joblist,
    jobs,
    logs,
    prompt,
    settings,
    uploads,
    userdata,
    v2_assets,
    v2_jobs,
)

SUBMIT, READ_JOBS = Scope.JOBS_SUBMIT, Scope.JOBS_READ
READ_FILES, WRITE_FILES = Scope.FILES_READ, Scope.FILES_WRITE
CATALOG = Scope.CATALOG_READ

_ASSETS = AdminOnly("ComfyUI's asset store cannot be kept apart between tenants")
_NAMED_FILE = frozenset({"file"})
_NAMED_SETTING = frozenset({"id"})


def _row(method: str, path: str, needs: Scope, tenant: TenantRule, **more: Any) -> Route:
    return Route(method=method, path=path, needs=needs, tenant=tenant, **{"prefix": Prefix.BOTH, **more})


def _shared(path: str, tenant: TenantRule = UNCHANGED, **more: Any) -> Route:
    """Read-only, and the same for all but for what the rule takes out."""
    return _row("GET", path, CATALOG, tenant, **{"caching": Caching.REVALIDATE, **more})


def _poll(path: str, tenant: TenantRule, **more: Any) -> Route:
    """What clients ask while they wait for their own jobs."""
    return _row("GET", path, READ_JOBS, tenant, budget=Budget.POLL, **more)


def _web(path: str, caching: Caching = Caching.WEB_UI) -> Route:
    """A file of the web UI."""
    return _shared(path, prefix=Prefix.BARE, caching=caching, budget=Budget.WEB_UI)


def _asset(method: str, path: str) -> Route:
    is_read = method == "GET"
    needs = READ_FILES if is_read else WRITE_FILES
    return _row(method, path, needs, _ASSETS, prefix=Prefix.API, body=Body.NONE if is_read else Body.STREAM)


EXECUTION = (
    _poll("/prompt", MultiCall(jobs.count)),
    _row(
        "POST",
        "/prompt",
        SUBMIT,
        MultiCall(prompt.submit),
        admin=MultiCall(prompt.submit_as_admin),
        body=Body.RAW,
        budget=Budget.SUBMIT,
        stores=True,
        time_limit_s=PATIENT_S,
        needs_catalogue=True,
        idempotency=Idempotency.REPLAYED,
        submits=True,
    ),
    _poll("/queue", MultiCall(jobs.queue), is_large=True),
    _row("POST", "/queue", SUBMIT, MultiCall(jobs.edit_queue), body=Body.JSON),
    _row("POST", "/interrupt", SUBMIT, MultiCall(jobs.interrupt), body=Body.OPTIONAL_JSON),
    _row("POST", "/free", SUBMIT, AdminOnly("it unloads models for every tenant"), body=Body.JSON),
    _poll("/history", MultiCall(jobs.history), time_limit_s=PATIENT_S, is_large=True),
    _poll("/history/{prompt_id}", MultiCall(jobs.history_of), is_large=True),
    _row("POST", "/history", SUBMIT, MultiCall(jobs.edit_history), body=Body.JSON),
    _poll("/jobs", MultiCall(joblist.list_jobs), prefix=Prefix.JOBS, time_limit_s=PATIENT_S, is_large=True),
    _poll("/jobs/{job_id}", MultiCall(joblist.job), prefix=Prefix.JOBS, is_large=True),
    _row("POST", "/jobs/cancel", SUBMIT, MultiCall(joblist.cancel_many), prefix=Prefix.JOBS, body=Body.JSON),
    _row("POST", "/jobs/{job_id}/cancel", SUBMIT, MultiCall(joblist.cancel), prefix=Prefix.JOBS),
    _poll("/ws", RelayWebSocket(), admin=RelayWebSocket()),
)

FILES = (
    _row(
        "POST",
        "/upload/image",
        WRITE_FILES,
        Rewrite(uploads.upload_image, uploads.uploaded),
        body=Body.STREAM,
        budget=Budget.UPLOAD,
        stores=True,
        time_limit_s=PATIENT_S,
    ),
    _row(
        "POST",
        "/upload/mask",
        WRITE_FILES,
        Rewrite(uploads.upload_mask, uploads.uploaded),
        makes_picture=always,
        body=Body.STREAM,
        budget=Budget.UPLOAD,
        stores=True,
        time_limit_s=PATIENT_S,
    ),
    _row(
        "GET",
        "/view",
        READ_FILES,
        Rewrite(files.view, None, files.find_plain, files.find_source, reads=files.find_shared),
        makes_picture=files.makes_picture,
        caching=Caching.REVALIDATE,
        time_limit_s=PATIENT_S,
    ),
    _shared("/view_metadata/{folder_name}", Rewrite(catalog.view_metadata, None), gather=catalog.first_of),
    _row(
        "GET",
        "/internal/files/{directory_type}",
        READ_FILES,
        Rewrite(catalog.files_of, catalog.list_files),
        prefix=Prefix.BARE,
        needs_files=True,
    ),
)

USERS = (
    _row("GET", "/users", READ_FILES, Rewrite(userdata.users, None)),
    _row("POST", "/users", WRITE_FILES, AdminOnly("tenants are made in config.toml"), body=Body.JSON),
    _row("GET", "/settings", READ_FILES, MultiCall(settings.get_all)),
    _row("GET", "/settings/{id}", READ_FILES, MultiCall(settings.get_one), may_contain_slash=_NAMED_SETTING),
    _row("POST", "/settings", WRITE_FILES, MultiCall(settings.set_all, is_exclusive=True), body=Body.JSON),
    _row(
        "POST",
        "/settings/{id}",
        WRITE_FILES,
        MultiCall(settings.set_one, is_exclusive=True),
        body=Body.JSON,
        may_contain_slash=_NAMED_SETTING,
    ),
    _row("GET", "/userdata", READ_FILES, MultiCall(userdata.list_directory)),
    _row("GET", "/v2/userdata", READ_FILES, MultiCall(userdata.list_tree)),
    _row("GET", "/userdata/{file}", READ_FILES, Rewrite(userdata.read, None), may_contain_slash=_NAMED_FILE),
    _row(
        "POST",
        "/userdata/{file}",
        WRITE_FILES,
        Rewrite(userdata.write, userdata.saved),
        body=Body.STREAM,
        budget=Budget.UPLOAD,
        stores=True,
        may_contain_slash=_NAMED_FILE,
    ),
    _row("DELETE", "/userdata/{file}", WRITE_FILES, Rewrite(userdata.delete, None), may_contain_slash=_NAMED_FILE),
    _row(
        "POST",
        "/userdata/{file}/move/{dest}",
        WRITE_FILES,
        Rewrite(userdata.move, userdata.saved),
        may_contain_slash=frozenset({"file", "dest"}),
    ),
)

_EXTENSIONS = Rewrite(unchanged, catalog.extensions)

CATALOGUE = (
    _shared("/object_info", CachedReply(catalog.describe_all), needs_catalogue=True, needs_files=True),
    _shared(
        "/object_info/{node_class}",
        CachedReply(catalog.describe_all, picks="node_class"),
        needs_catalogue=True,
        needs_files=True,
    ),
    _shared("/models", Rewrite(unchanged, catalog.model_folders), gather=catalog.all_of),
    _shared("/models/{folder}", Rewrite(catalog.models_in, None), gather=catalog.all_of),
    _shared("/embeddings", gather=catalog.all_of),
    _shared("/experiment/models", Rewrite(unchanged, catalog.described_model_folders), gather=catalog.all_of),
    _shared("/experiment/models/{folder}", Rewrite(catalog.models_in, catalog.described_models), gather=catalog.all_of),
    _shared(
        "/experiment/models/preview/{folder}/{path_index}/{filename}",
        Rewrite(catalog.model_preview, None),
        makes_picture=always,
        may_contain_slash=frozenset({"filename"}),
    ),
    _shared("/global_subgraphs"),
    _shared(
        "/global_subgraphs/{id}", budget=Budget.WEB_UI
    ),  # a page that loads asks for each: some ninety of ComfyUI 0.33's own
    _shared("/node_replacements"),
    _shared("/workflow_templates"),
    _shared("/workflow_templates/{pack}/{file...}", prefix=Prefix.API),
    _shared("/i18n"),
    _shared("/extensions", _EXTENSIONS, admin=_EXTENSIONS),
    _shared("/features", Rewrite(unchanged, catalog.features)),
    _shared("/system_stats", Rewrite(unchanged, catalog.system_stats), caching=Caching.PRIVATE),
)

INSIDE = (
    _row("GET", "/internal/logs", READ_JOBS, Rewrite(logs.text, None), prefix=Prefix.BARE),
    _row("GET", "/internal/logs/raw", READ_JOBS, Rewrite(logs.entries, None), prefix=Prefix.BARE),
    _row(
        "PATCH",
        "/internal/logs/subscribe",
        READ_JOBS,
        Rewrite(logs.subscribe, None),
        prefix=Prefix.BARE,
        body=Body.JSON,
    ),
    _shared("/internal/folder_paths", Rewrite(unchanged, catalog.folder_paths), prefix=Prefix.BARE),
)

ASSETS = (
    _asset("GET", "/assets"),
    _asset("POST", "/assets"),
    _asset("POST", "/assets/from-hash"),
    _asset("GET", "/assets/hash/{hash}"),
    _asset("GET", "/assets/tags/refine"),
    _asset("GET", "/assets/seed/status"),
    _asset("POST", "/assets/seed"),
    _asset("POST", "/assets/seed/cancel"),
    _asset("POST", "/assets/prune"),
    _asset("GET", "/assets/{id}"),
    _asset("PUT", "/assets/{id}"),
    _asset("DELETE", "/assets/{id}"),
    _asset("GET", "/assets/{id}/content"),
    _asset("POST", "/assets/{id}/tags"),
    _asset("DELETE", "/assets/{id}/tags"),
    _asset("GET", "/tags"),
)

_NOT_OF_ADMINS = Deny("an admin's jobs and files are ComfyUI's, not the gate's: use a tenant's key")


def _v2(method: str, path: str, needs: Scope, rule: TenantRule, **more: Any) -> Route:
    """Comfy API v2 (policy/v2), which the gate answers itself."""
    return _row(
        method,
        f"/v2{path}",
        needs,
        rule,
        **{"admin": _NOT_OF_ADMINS, "prefix": Prefix.API, "shows_links": True, "origin": "comfygate", **more},
    )


V2 = (
    _v2(
        "POST",
        "/jobs",
        SUBMIT,
        MultiCall(v2_jobs.submit),
        body=Body.RAW,
        budget=Budget.SUBMIT,
        stores=True,
        time_limit_s=PATIENT_S,
        needs_catalogue=True,
        idempotency=Idempotency.SINGLE_USE,
        submits=True,
    ),
    _v2("GET", "/jobs", READ_JOBS, MultiCall(v2_jobs.list_jobs), budget=Budget.POLL),
    _v2("GET", "/jobs/{job_id}", READ_JOBS, ShowJob(v2_jobs.read), budget=Budget.POLL),
    _v2("GET", "/jobs/{job_id}/workflow", READ_JOBS, MultiCall(v2_jobs.workflow), is_large=True),
    _v2("GET", "/jobs/{job_id}/events", READ_JOBS, StreamEvents(), budget=Budget.POLL),
    _v2("POST", "/jobs/{job_id}/cancel", SUBMIT, MultiCall(v2_jobs.cancel)),
    _v2(
        "POST",
        "/assets",
        WRITE_FILES,
        MultiCall(v2_assets.upload),
        body=Body.STREAM,
        budget=Budget.UPLOAD,
        stores=True,
        time_limit_s=PATIENT_S,
        idempotency=Idempotency.SINGLE_USE,
    ),
    _v2(
        "POST",
        "/assets/from-hash",
        WRITE_FILES,
        MultiCall(v2_assets.from_hash),
        body=Body.JSON,
        budget=Budget.UPLOAD,
    ),
    _v2("GET", "/assets/by-hash/{hash}", READ_FILES, MultiCall(v2_assets.by_hash)),
    _v2("GET", "/assets/{asset_id}", READ_FILES, MultiCall(v2_assets.read)),
    _v2("DELETE", "/assets/{asset_id}", WRITE_FILES, MultiCall(v2_assets.delete)),
    _v2(
        "GET",
        "/assets/{asset_id}/content",
        READ_FILES,
        SendFile(v2_assets.content),
        caching=Caching.REVALIDATE,
        time_limit_s=PATIENT_S,
    ),
)


def _gate(method: str, path: str, needs: Scope, rule: TenantRule, **more: Any) -> Route:
    """The gate's own: functions, and their jobs."""
    own = {"admin": _NOT_OF_ADMINS, "prefix": Prefix.BARE, "shows_links": True, "origin": "comfygate"}
    return _row(method, f"/gate{path}", needs, rule, **{**own, **more})


FUNCTIONS = (
    _gate("GET", "/functions", CATALOG, MultiCall(functions.list_functions)),
    _gate("GET", "/functions/{name}", CATALOG, MultiCall(functions.describe)),
    _gate("GET", "/docs", CATALOG, ShowDocs(is_negotiated=True)),
    _gate("GET", "/openapi.json", CATALOG, ShowDocs(is_negotiated=False)),
    _gate("GET", "/run", CATALOG, MultiCall(functions.list_functions, has_page=True)),
    _gate("GET", "/run/{name}", CATALOG, MultiCall(functions.describe, has_page=True)),
    _gate(
        "POST",
        "/run/{name}",
        SUBMIT,
        RunFunction(),
        body=Body.ARGUMENTS,
        budget=Budget.SUBMIT,
        stores=True,
        time_limit_s=PATIENT_S,
        needs_catalogue=True,
        idempotency=Idempotency.REPLAYED,
        submits=True,
    ),
    _gate("GET", "/jobs/{job_id}", READ_JOBS, MultiCall(functions.read), budget=Budget.POLL),
    _gate("GET", "/jobs/{job_id}/events", READ_JOBS, StreamEvents(), budget=Budget.POLL),
    _gate("POST", "/jobs/{job_id}/cancel", SUBMIT, MultiCall(functions.cancel)),
    _gate(
        "GET",
        "/jobs/{job_id}/outputs/{name}",
        READ_FILES,
        SendFile(functions.output),
        caching=Caching.REVALIDATE,
        time_limit_s=PATIENT_S,
    ),
)

# Of later versions of ComfyUI: its server would fetch an address of the client's choice. Refused before it can be there.
_FETCHES = Deny("ComfyUI would fetch any address")
FORBIDDEN = (_row("POST", "/assets/download", WRITE_FILES, _FETCHES, admin=_FETCHES, prefix=Prefix.API),)

WEB = (
    _web("/"),
    _web("/index.html"),
    _web("/favicon.ico"),
    _web("/materialdesignicons.min.css"),
    _web("/user.css"),
    _web("/assets/{file...}", Caching.HASHED),
    _web("/cursor/{file...}"),
    _web("/fonts/{file...}"),
    _web("/scripts/{file...}"),
    _web("/lib/{file...}"),
    _web("/extensions/{file...}"),
    _web("/templates/{file...}"),
    _web("/docs/{file...}"),
)

ROUTES = EXECUTION + FILES + USERS + CATALOGUE + INSIDE + ASSETS + V2 + FUNCTIONS + FORBIDDEN + WEB
TABLE = RouteTable(ROUTES)

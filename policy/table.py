"""Every route of ComfyUI that the gate knows, in the order of comfyui's own areas: running, files, users, catalogue, inside, web UI."""

from __future__ import annotations

from typing import Any

from policy.principal import Scope
from policy.routes import (
    PATIENT_S,
    UNCHANGED,
    AdminsOnly,
    Body,
    Budget,
    Caching,
    Prefix,
    Refused,
    Relays,
    Route,
    RouteTable,
)

_NO_TENANT_RULE = AdminsOnly("it has no rule for tenants yet")
_ASSETS = AdminsOnly("ComfyUI's asset store cannot be kept apart between tenants")


def _shared(path: str, prefix: Prefix = Prefix.BOTH, **more: Any) -> Route:
    """Read-only and equal for all."""
    return Route(
        method="GET",
        path=path,
        prefix=prefix,
        needs=Scope.CATALOG_READ,
        tenant=UNCHANGED,
        **{"caching": Caching.REVALIDATE, **more},
    )


def _web(path: str) -> Route:
    """A file of the web UI."""
    return _shared(path, Prefix.BARE, caching=Caching.PUBLIC)


EXECUTION = (
    Route(method="GET", path="/prompt", prefix=Prefix.BOTH, needs=Scope.JOBS_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="POST",
        path="/prompt",
        prefix=Prefix.BOTH,
        needs=Scope.JOBS_SUBMIT,
        tenant=_NO_TENANT_RULE,
        body=Body.RAW,
        budget=Budget.SUBMIT,
        time_limit_s=PATIENT_S,
    ),
    Route(method="GET", path="/queue", prefix=Prefix.BOTH, needs=Scope.JOBS_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="POST",
        path="/queue",
        prefix=Prefix.BOTH,
        needs=Scope.JOBS_SUBMIT,
        tenant=_NO_TENANT_RULE,
        body=Body.JSON,
    ),
    Route(
        method="POST",
        path="/interrupt",
        prefix=Prefix.BOTH,
        needs=Scope.JOBS_SUBMIT,
        tenant=_NO_TENANT_RULE,
        body=Body.JSON,
    ),
    Route(
        method="POST",
        path="/free",
        prefix=Prefix.BOTH,
        needs=Scope.JOBS_SUBMIT,
        tenant=AdminsOnly("it unloads models for every tenant"),
        body=Body.JSON,
    ),
    Route(method="GET", path="/history", prefix=Prefix.BOTH, needs=Scope.JOBS_READ, tenant=_NO_TENANT_RULE),
    Route(method="GET", path="/history/{prompt_id}", prefix=Prefix.BOTH, needs=Scope.JOBS_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="POST",
        path="/history",
        prefix=Prefix.BOTH,
        needs=Scope.JOBS_SUBMIT,
        tenant=_NO_TENANT_RULE,
        body=Body.JSON,
    ),
    Route(method="GET", path="/jobs", prefix=Prefix.JOBS, needs=Scope.JOBS_READ, tenant=_NO_TENANT_RULE),
    Route(method="GET", path="/jobs/{job_id}", prefix=Prefix.JOBS, needs=Scope.JOBS_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="POST",
        path="/jobs/cancel",
        prefix=Prefix.JOBS,
        needs=Scope.JOBS_SUBMIT,
        tenant=_NO_TENANT_RULE,
        body=Body.JSON,
    ),
    Route(
        method="POST",
        path="/jobs/{job_id}/cancel",
        prefix=Prefix.JOBS,
        needs=Scope.JOBS_SUBMIT,
        tenant=_NO_TENANT_RULE,
    ),
    Route(
        method="GET",
        path="/ws",
        prefix=Prefix.BOTH,
        needs=Scope.JOBS_READ,
        tenant=_NO_TENANT_RULE,
        admin=Relays(),
    ),
)

FILES = (
    Route(
        method="POST",
        path="/upload/image",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        body=Body.UPLOAD,
        budget=Budget.UPLOAD,
        time_limit_s=PATIENT_S,
    ),
    Route(
        method="POST",
        path="/upload/mask",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        body=Body.UPLOAD,
        budget=Budget.UPLOAD,
        time_limit_s=PATIENT_S,
    ),
    Route(
        method="GET",
        path="/view",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_READ,
        tenant=_NO_TENANT_RULE,
        caching=Caching.REVALIDATE,
    ),
    Route(
        method="GET",
        path="/view_metadata/{folder_name}",
        prefix=Prefix.BOTH,
        needs=Scope.CATALOG_READ,
        tenant=_NO_TENANT_RULE,
    ),
    Route(
        method="GET",
        path="/internal/files/{directory_type}",
        prefix=Prefix.BARE,
        needs=Scope.FILES_READ,
        tenant=_NO_TENANT_RULE,
    ),
)

USERS = (
    Route(method="GET", path="/users", prefix=Prefix.BOTH, needs=Scope.FILES_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="POST",
        path="/users",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=AdminsOnly("tenants are made in config.toml"),
        body=Body.JSON,
    ),
    Route(method="GET", path="/settings", prefix=Prefix.BOTH, needs=Scope.FILES_READ, tenant=_NO_TENANT_RULE),
    Route(method="GET", path="/settings/{id}", prefix=Prefix.BOTH, needs=Scope.FILES_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="POST",
        path="/settings",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        body=Body.JSON,
    ),
    Route(
        method="POST",
        path="/settings/{id}",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        body=Body.JSON,
    ),
    Route(method="GET", path="/userdata", prefix=Prefix.BOTH, needs=Scope.FILES_READ, tenant=_NO_TENANT_RULE),
    Route(method="GET", path="/v2/userdata", prefix=Prefix.BOTH, needs=Scope.FILES_READ, tenant=_NO_TENANT_RULE),
    Route(
        method="GET",
        path="/userdata/{file}",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_READ,
        tenant=_NO_TENANT_RULE,
        slashed=frozenset({"file"}),
    ),
    Route(
        method="POST",
        path="/userdata/{file}",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        body=Body.STREAM,
        budget=Budget.UPLOAD,
        slashed=frozenset({"file"}),
    ),
    Route(
        method="DELETE",
        path="/userdata/{file}",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        slashed=frozenset({"file"}),
    ),
    Route(
        method="POST",
        path="/userdata/{file}/move/{dest}",
        prefix=Prefix.BOTH,
        needs=Scope.FILES_WRITE,
        tenant=_NO_TENANT_RULE,
        slashed=frozenset({"file", "dest"}),
    ),
)

CATALOGUE = (
    Route(
        method="GET",
        path="/object_info",
        prefix=Prefix.BOTH,
        needs=Scope.CATALOG_READ,
        tenant=_NO_TENANT_RULE,
        caching=Caching.REVALIDATE,
    ),
    Route(
        method="GET",
        path="/object_info/{node_class}",
        prefix=Prefix.BOTH,
        needs=Scope.CATALOG_READ,
        tenant=_NO_TENANT_RULE,
        caching=Caching.REVALIDATE,
    ),
    _shared("/models"),
    _shared("/models/{folder}"),
    _shared("/embeddings"),
    Route(
        method="GET", path="/experiment/models", prefix=Prefix.BOTH, needs=Scope.CATALOG_READ, tenant=_NO_TENANT_RULE
    ),
    Route(
        method="GET",
        path="/experiment/models/{folder}",
        prefix=Prefix.BOTH,
        needs=Scope.CATALOG_READ,
        tenant=_NO_TENANT_RULE,
    ),
    _shared(
        "/experiment/models/preview/{folder}/{path_index}/{filename}",
        slashed=frozenset({"filename"}),
    ),
    _shared("/global_subgraphs"),
    _shared("/global_subgraphs/{id}"),
    _shared("/node_replacements"),
    _shared("/workflow_templates"),
    _shared("/workflow_templates/{pack}/{file...}", Prefix.API),
    _shared("/i18n"),
    _shared("/extensions"),
    _shared("/features"),
    Route(method="GET", path="/system_stats", prefix=Prefix.BOTH, needs=Scope.CATALOG_READ, tenant=_NO_TENANT_RULE),
)

INSIDE = (
    Route(
        method="GET",
        path="/internal/logs",
        prefix=Prefix.BARE,
        needs=Scope.JOBS_READ,
        tenant=AdminsOnly("the log shows every tenant's work"),
    ),
    Route(
        method="GET",
        path="/internal/logs/raw",
        prefix=Prefix.BARE,
        needs=Scope.JOBS_READ,
        tenant=AdminsOnly("the log shows every tenant's work"),
    ),
    Route(
        method="PATCH",
        path="/internal/logs/subscribe",
        prefix=Prefix.BARE,
        needs=Scope.JOBS_READ,
        tenant=AdminsOnly("the log shows every tenant's work"),
        body=Body.JSON,
    ),
    Route(
        method="GET",
        path="/internal/folder_paths",
        prefix=Prefix.BARE,
        needs=Scope.CATALOG_READ,
        tenant=AdminsOnly("it shows the server's folders"),
    ),
)

ASSETS = tuple(
    Route(
        method=method,
        path=path,
        prefix=Prefix.API,
        needs=Scope.FILES_READ if method in ("GET", "HEAD") else Scope.FILES_WRITE,
        tenant=_ASSETS,
        body=Body.NONE if method in ("GET", "HEAD") else Body.STREAM,
    )
    for method, path in (
        ("GET", "/assets"),
        ("POST", "/assets"),
        ("POST", "/assets/from-hash"),
        ("GET", "/assets/hash/{hash}"),
        ("GET", "/assets/tags/refine"),
        ("GET", "/assets/seed/status"),
        ("POST", "/assets/seed"),
        ("POST", "/assets/seed/cancel"),
        ("POST", "/assets/prune"),
        ("GET", "/assets/{id}"),
        ("PUT", "/assets/{id}"),
        ("DELETE", "/assets/{id}"),
        ("GET", "/assets/{id}/content"),
        ("POST", "/assets/{id}/tags"),
        ("DELETE", "/assets/{id}/tags"),
        ("GET", "/tags"),
    )
)

# In later versions of ComfyUI: the server fetches an address of the client's choice. Refused before it can be there.
FORBIDDEN = (
    Route(
        method="POST",
        path="/assets/download",
        prefix=Prefix.API,
        needs=Scope.FILES_WRITE,
        tenant=Refused("ComfyUI would fetch any address"),
        admin=Refused("ComfyUI would fetch any address"),
    ),
)

WEB = (
    _web("/"),
    _web("/index.html"),
    _web("/favicon.ico"),
    _web("/materialdesignicons.min.css"),
    _web("/user.css"),
    _web("/assets/{file...}"),
    _web("/cursor/{file...}"),
    _web("/fonts/{file...}"),
    _web("/scripts/{file...}"),
    _web("/lib/{file...}"),
    _web("/extensions/{file...}"),
    _web("/templates/{file...}"),
    _web("/docs/{file...}"),
)

ROUTES = EXECUTION + FILES + USERS + CATALOGUE + INSIDE + ASSETS + FORBIDDEN + WEB
TABLE = RouteTable(ROUTES)

"""The whole document, of one tenant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.functions.function import CallableFunction, Function
from policy.openapi.callbacks import callbacks
from policy.openapi.choice import version_of
from policy.openapi.functions import arguments_name, call_operation, json_arguments
from policy.openapi.jobs import describe_operation, shared_paths
from policy.openapi.schemas import shared_schemas, v2_schemas
from policy.openapi.v2 import v2_paths
from policy.v2.links import Links

OPENAPI: Final = "3.1.1"
_ABOUT: Final = """\
Everything is refused in one shape, and `X-Request-Id` names the request in the operator's log. \
Who asks for a page (`Accept: text/html`) may be answered with a page, or led to the login.

A credential goes with each request: an API key or a token as `Authorization: Bearer`, a key as `X-API-Key`, or as the password of `Basic`; \
a browser has the session of the sign-in page."""
_TAGS: Final = {
    "Functions": "Each function is one operation with arguments of its own.",
    "Jobs": "What became of a call. They are jobs like any other of the tenant's.",
}
_V2_TAGS: Final = {
    "Jobs": "The same jobs as everywhere else, whichever door they came in by.",
    "Assets": "Files of yours: uploaded, or made by your jobs.",
}
_SECURITY: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token (JWT) of a configured issuer.",
    },
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "basic": {"type": "http", "scheme": "basic", "description": "An API key as the password, with any user name."},
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "An API key or a token, for clients that can send no header. Addresses are written down in many places: prefer a header.",
    },
}


def openapi_document(functions: Mapping[str, CallableFunction], links: Links) -> dict[str, Any]:
    """functions: that the tenant may call, by name. links: where it does."""
    called = [each.function for each in functions.values()]
    paths = {
        f"/gate/run/{each.name}": {"post": call_operation(each, links), "get": describe_operation(each)}
        for each in called
    } | shared_paths()
    schemas = shared_schemas() | {arguments_name(each): _arguments(each) for each in called}
    info = {
        "title": "comfygate",
        "version": version_of(functions),
        "summary": "Workflows of ComfyUI, called with arguments",
        "description": f"Functions that you may call, and their jobs. {_ABOUT}",
    }
    document = _document(info, links, paths, schemas, _TAGS)
    document["components"]["callbacks"] = callbacks()
    return document


def v2_document(links: Links, *, takes_workflows: bool) -> dict[str, Any]:
    """Comfy API v2, as the gate answers it. takes_workflows: whether the tenant sends workflows of its own."""
    info = {
        "title": "Comfy API v2 of comfygate",
        "version": "2.0.0",
        "summary": "Jobs and assets, as Comfy-Org's SDKs ask for them",
        "description": f"Your jobs and files. {_ABOUT}",
    }
    return _document(info, links, v2_paths(takes_workflows=takes_workflows), v2_schemas(), _V2_TAGS)


def _document(
    info: dict[str, Any], links: Links, paths: dict[str, Any], schemas: Mapping[str, Any], tags: Mapping[str, str]
) -> dict[str, Any]:
    refusals = _take_out_refusals(paths)
    return {
        "openapi": OPENAPI,
        "info": info,
        "servers": [{"url": f"{links.origin}{links.prefix}"}],
        "security": [{name: []} for name in _SECURITY],
        "tags": [{"name": name, "description": words} for name, words in tags.items()],
        "paths": paths,
        "components": {
            "securitySchemes": _SECURITY,
            "responses": refusals,
            "schemas": dict(schemas),
        },
    }


def _arguments(function: Function) -> dict[str, Any]:
    return {"title": function.title, **json_arguments(function)}


def _take_out_refusals(paths: Mapping[str, Any]) -> dict[str, Any]:
    """What many operations refuse alike stands once, by name; in its places are references."""
    named: dict[str, Any] = {}
    names: dict[str, str] = {}
    for path in paths.values():
        for operation in path.values():
            responses = operation["responses"] if isinstance(operation, dict) else {}
            for status, response in responses.items():
                if status < "400" or "content" not in response:
                    continue
                name = names.setdefault(repr(response), f"refused_{status}_{len(names)}")
                named[name] = response
                responses[status] = {"$ref": f"#/components/responses/{name}"}
    return named

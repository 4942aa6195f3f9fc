"""The whole document, of one tenant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from policy.functions.function import CallableFunction, Function
from policy.openapi.functions import arguments_name, call_operation, json_arguments
from policy.openapi.jobs import describe_operation, shared_paths
from policy.openapi.schemas import shared_schemas
from policy.v2.links import Links

OPENAPI: Final = "3.1.1"
_ABOUT: Final = """\
Functions that you may call, and their jobs. Everything is refused in one shape (`Error`), and `X-Request-Id` names the request in the operator's log. \
Who asks for a page (`Accept: text/html`) may be answered with a page, or led to the login.

A credential goes with each request: an API key or a token as `Authorization: Bearer`, a key as `X-API-Key`, or as the password of `Basic`; \
a browser has the session of the sign-in page."""
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


def version_of(functions: Mapping[str, CallableFunction]) -> str:
    """Changes with each function's settings and workflow."""
    named = sorted((name, called.function.version) for name, called in functions.items())
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]


def openapi_document(functions: Mapping[str, CallableFunction], links: Links) -> dict[str, Any]:
    """functions: that the tenant may call, by name. links: where it does."""
    called = [each.function for each in functions.values()]
    paths = {
        f"/gate/run/{each.name}": {"post": call_operation(each, links), "get": describe_operation(each)}
        for each in called
    } | shared_paths()
    refusals = _take_out_refusals(paths)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "comfygate",
            "version": version_of(functions),
            "summary": "Workflows of ComfyUI, called with arguments",
            "description": _ABOUT,
        },
        "servers": [{"url": f"{links.origin}{links.prefix}"}],
        "security": [{name: []} for name in _SECURITY],
        "tags": [
            {"name": "Functions", "description": "Each function is one operation with arguments of its own."},
            {"name": "Jobs", "description": "What became of a call. They are jobs like any other of the tenant's."},
        ],
        "paths": paths,
        "components": {
            "securitySchemes": _SECURITY,
            "responses": refusals,
            "schemas": shared_schemas() | {arguments_name(each): _arguments(each) for each in called},
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

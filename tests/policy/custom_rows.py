"""Rows of custom nodes for tests of the policy, in few words."""

from __future__ import annotations

from typing import Any

from policy.custom_routes import RouteSettings
from policy.principal import Scope
from policy.route_kinds import make_routes
from policy.routes import UNCHANGED, Prefix, Route, RouteTable


def row(path: str, kind: str, *methods: str, **more: Any) -> RouteSettings:
    return RouteSettings.model_validate({"path": path, "kind": kind, "methods": methods or ("GET",), **more})


def table_of(*rows: RouteSettings) -> RouteTable:
    return RouteTable(tuple(route for each in rows for route in make_routes(each, "test")))


def route_at(path: str, prefix: Prefix) -> Route:
    return Route(method="GET", path=path, prefix=prefix, needs=Scope.CATALOG_READ, tenant=UNCHANGED)

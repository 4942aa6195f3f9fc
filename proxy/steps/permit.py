"""Who asks, and whether this may be asked: the route, the credential, the origin, the rate, the rule for the caller's role."""

from __future__ import annotations

from typing import Final

from policy.call import ClientCall, ClientReply
from policy.keyform import Presented
from policy.principal import Principal
from policy.routes import Budget, Route, RouteTable, Target, TenantRule
from policy.values import value
from policy.violation import Reason, Violation
from proxy.auth.credentials import CREDENTIAL_PARAMETERS
from proxy.auth.misplaced_credentials import search_head
from proxy.compiled_config import CompiledConfig
from proxy.dependencies import Dependencies
from proxy.http.errors import MethodNotAllowed
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import is_upgrade
from proxy.limits.rate_limiter import RateHeaders
from proxy.pages.routes import before_web_ui, in_place_of_web_ui

Query = tuple[tuple[str, str], ...]
_PERMISSION: Final = "permission"
"""Of Request.of_head."""


@value
class PermittedRequest:
    """A request that may use its route. compiled: the configuration that all of it goes by. rule: the one for the caller's role.

    call: without credentials, which go no further. credentials: what it proved itself with, to be found where they have no business.
    """

    request: Request
    record: RequestRecord
    compiled: CompiledConfig
    route: Route
    rule: TenantRule
    call: ClientCall
    principal: Principal
    credentials: Presented


@value
class Permission:
    """What follows from a head, a configuration and the caller, so that a head that comes again need not be looked at again.

    budget: what each request draws on. cors: fields of its answer.
    """

    compiled: CompiledConfig
    principal: Principal
    query: Query
    budget: Budget
    cors: tuple[tuple[str, str], ...]
    route: Route
    rule: TenantRule
    call: ClientCall
    credentials: Presented


def permit_again(
    dependencies: Dependencies, request: Request, record: RequestRecord, compiled: CompiledConfig
) -> PermittedRequest | None:
    """As `permit` did it for the same head before. None, and nothing is spent or noted, where `permit` has the answer: it never permitted that head,
    another configuration is in force, the credentials have to be looked at, or the rate is used up or counted elsewhere.

    SECURITY: the same bytes, from the request line on, on the same connection: tests/wire/test_again.py.
    """
    known: Permission | None = request.of_head.get(_PERMISSION)
    if known is None or known.compiled is not compiled:
        return None
    principal, route = known.principal, known.route
    if compiled.authenticator.recall(request.headers, known.query, request.of_fields) is not principal:
        return None
    spent = dependencies.limiter.acquire_at_once(principal, known.budget)
    if spent is None:
        return None
    request.prove(principal.tenant)
    record.principal, record.route, record.submits = principal, route.name, route.submits
    if known.cors:
        record.response_headers += known.cors
    record.response_headers += spent
    return PermittedRequest(request, record, compiled, route, known.rule, known.call, principal, known.credentials)


async def permit(
    dependencies: Dependencies,
    request: Request,
    record: RequestRecord,
    compiled: CompiledConfig,
    target: Target,
) -> PermittedRequest | ClientReply:
    """A reply: what a browser gets in the web UI's place, or the answer to a CORS preflight.

    Raises Unauthenticated, LimitExceeded, Violation, MethodNotAllowed.
    """
    route, query = target.route, target.query
    origins, authenticator = compiled.origins, compiled.authenticator
    cors = origins.cors_headers(request.headers)
    record.response_headers += cors
    if (preflight := origins.preflight(request.method, request.headers)) is not None:
        return preflight
    _note(record, route)
    is_web_ui = route is not None and route.caching.is_web_ui
    principal = authenticator.recall(request.headers, query, request.of_fields)
    if principal is None:
        principal = await dependencies.login_throttle.authenticate(authenticator, request, query, record.client)
    record.principal = principal
    origins.check(request.method, is_upgrade(request), request.headers, principal)
    request.prove(principal.tenant)
    if principal.is_session and not is_web_ui:  # what an edge may give to others carries nobody's cookie
        record.response_headers += authenticator.sessions.renewed(principal)
    call = target.call_with(tuple(pair for pair in query if pair[0] not in CREDENTIAL_PARAMETERS))
    budget = route.budget_for(call) if route is not None else Budget.READ
    record.response_headers += await _spend(dependencies, request, principal, budget)
    if route is None:
        raise _unlisted(compiled.table, target.segments)
    rule = route.rule_for(principal)
    if is_web_ui and (page := _before_web_ui(request, record, compiled, principal, target)) is not None:
        return page
    credentials = search_head(request, query, call, authenticator.sessions.cookie_name)
    permitted = PermittedRequest(request, record, compiled, route, rule, call, principal, credentials)
    if not is_web_ui and not principal.is_session:  # a session renews itself as it ages
        _keep(permitted, query, budget, cors)
    return permitted


def _keep(permitted: PermittedRequest, query: Query, budget: Budget, cors: tuple[tuple[str, str], ...]) -> None:
    """For `permit_again`. Nothing of the request itself, which would stay with its connection."""
    permitted.request.of_head[_PERMISSION] = Permission(
        permitted.compiled,
        permitted.principal,
        query,
        budget,
        cors,
        permitted.route,
        permitted.rule,
        permitted.call,
        permitted.credentials,
    )


async def _spend(dependencies: Dependencies, request: Request, principal: Principal, budget: Budget) -> RateHeaders:
    """What is refused is counted too: a caller has no endless supply of refusals. Raises LimitExceeded."""
    spent = dependencies.limiter.acquire_at_once(principal, budget)
    return spent if spent is not None else await dependencies.limiter.acquire(principal, budget, request)


def _before_web_ui(
    request: Request, record: RequestRecord, compiled: CompiledConfig, principal: Principal, target: Target
) -> ClientReply | None:
    """What a person's browser gets in the web UI's place."""
    takes_workflows = compiled.access_of(principal).takes_workflows
    elsewhere = in_place_of_web_ui(request, record, target.segments, takes_workflows=takes_workflows)
    return elsewhere or before_web_ui(request, record, compiled.authenticator.sessions, principal)


def _note(record: RequestRecord, route: Route | None) -> None:
    if route is not None:
        record.route, record.submits = route.name, route.submits


def _unlisted(table: RouteTable, segments: tuple[str, ...]) -> Exception:
    """Why there is no row for a call: no such path, or another method."""
    methods = table.methods(segments)
    if methods:
        return MethodNotAllowed(methods)
    return Violation(Reason.ROUTE_UNLISTED, "There is no such route here.")

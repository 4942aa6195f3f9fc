"""Who asks, and whether this may be asked: the route, the credential, the origin, the rate, the rule for the caller's role."""

from __future__ import annotations

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
from proxy.pages.routes import before_web_ui, in_place_of_web_ui

Query = tuple[tuple[str, str], ...]


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
    record.response_headers += origins.cors_headers(request.headers)
    if (preflight := origins.preflight(request.method, request.headers)) is not None:
        return preflight
    _note(record, route)
    is_web_ui = route is not None and route.caching.is_web_ui
    principal = authenticator.recall(request.headers, query, request.derived)
    if principal is None:
        principal = await dependencies.login_throttle.authenticate(authenticator, request.headers, query, record.client)
    record.principal = principal
    origins.check(request.method, is_upgrade(request), request.headers, principal)
    request.prove()
    if principal.is_session and not is_web_ui:  # what an edge may give to others carries nobody's cookie
        record.response_headers += authenticator.sessions.renewed(principal)
    call = target.call
    if query:
        call = target.call_with(tuple(pair for pair in query if pair[0] not in CREDENTIAL_PARAMETERS))
    # What is refused is counted too: a caller has no endless supply of refusals.
    budget = route.budget_for(call) if route is not None else Budget.READ
    spent = dependencies.limiter.acquire_at_once(principal, budget)
    record.response_headers += spent if spent is not None else await dependencies.limiter.acquire(principal, budget)
    if route is None:
        raise _unlisted(compiled.table, target.segments)
    rule = route.rule_for(principal)
    if is_web_ui and (page := _before_web_ui(request, record, compiled, principal, target)) is not None:
        return page
    credentials = search_head(request, query, call, authenticator.sessions.cookie_name)
    return PermittedRequest(request, record, compiled, route, rule, call, principal, credentials)


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

"""What the rule judges: who asks, with which policy and jobs, and the document that was sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from policy.catalogue import Catalogue
from policy.fitting import Candidate
from policy.principal import Principal
from policy.routes import Body, CachedReply, PassThrough
from policy.rule_context import RuleContext, RuleInput
from policy.v2.links import Links
from proxy.auth.misplaced_credentials import read_document
from proxy.dependencies import Dependencies
from proxy.http import request_body
from proxy.http.multipart_upload import is_form
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest
from proxy.upstream.merged_catalogue import MergedCatalogue, PartialCatalogue
from proxy.upstream.node_catalogue import CatalogueSource

_NO_LINKS: Final = Links()
_NO_CATALOGUE: Final = Catalogue()


async def read_rule_input(
    dependencies: Dependencies, permitted: PermittedRequest, held: Held, check: Callable[[Principal], None]
) -> RuleInput | None:
    """None for a call that goes on as it is, which no rule judges. held: the places that the request takes, given back when its answer has left.
    check: raises CredentialEnded where the caller may not go on; asked when something was waited for.

    Raises LimitExceeded, CredentialEnded, Violation, BodyTimeout, ClientGone, UpstreamUnavailable, UpstreamTimeout.
    """
    # SECURITY: calls that their client sends slowly, or whose answers it does not read, would take all connections and all memory
    # (tests/security/test_connections.py, test_bodies.py, test_large_answers.py).
    tenant, route = permitted.principal.tenant, permitted.route
    is_at_once = dependencies.under_way.enter_at_once(tenant)
    if not is_at_once:
        await dependencies.under_way.enter(tenant)
    held.callback(dependencies.under_way.leave, tenant)
    asked = None
    if isinstance(permitted.rule, PassThrough):
        if is_at_once and not route.is_large and not route.is_heavy:
            return None
    else:
        context = await rule_context(dependencies, permitted)
        if route.body is Body.NONE and not route.stores:
            asked = RuleInput(permitted.call, context)
        else:
            asked = await _read_document(dependencies, permitted, context, held)
    if route.is_large:
        held.callback(await dependencies.large_answers.acquire(tenant))
    if route.is_heavy:
        held.callback(await dependencies.heavy_answers.acquire(tenant))
    check(permitted.principal)
    return asked


async def rule_context(dependencies: Dependencies, permitted: PermittedRequest) -> RuleContext:
    """Everything a rule may know. Rows that judge classes wait for a catalogue, rows that show it for a fresh one, others take what there is.

    Raises CredentialEnded, UpstreamUnavailable, UpstreamTimeout.
    """
    route, compiled, principal = permitted.route, permitted.compiled, permitted.principal
    tenant = principal.tenant
    await dependencies.jobs.replica.current()
    standing = compiled.contexts.get((tenant, principal.is_admin)) or _standing(dependencies, permitted)
    usable = _usable_by(dependencies, principal)
    snapshot = usable.catalogue.snapshot
    if isinstance(permitted.rule, CachedReply):
        snapshot = await usable.catalogue.fresh()
    elif route.needs_catalogue:
        snapshot = await usable.catalogue.known()
    return standing.of_request(
        principal,
        dependencies.registry.of(tenant),
        snapshot.catalogue,
        datetime.now(),
        await dependencies.files.listing(tenant) if route.needs_files else dependencies.files.unknown,
        dependencies.kept.of(tenant),
        compiled.links_for(permitted.request) if route.shows_links else _NO_LINKS,
        usable.comfyuis,
    )


def _standing(dependencies: Dependencies, permitted: PermittedRequest) -> RuleContext:
    """What all requests of a tenant's credentials of one role have in common under one configuration, kept there. Raises CredentialEnded."""
    compiled, principal = permitted.compiled, permitted.principal
    access, config = compiled.access_of(principal), compiled.config
    made = compiled.contexts[principal.tenant, principal.is_admin] = RuleContext(
        principal=principal,
        names=access.namespace,
        jobs=dependencies.registry.of(principal.tenant),
        policy=access.policy,
        catalogue=_NO_CATALOGUE,
        now=datetime.now(),
        shared_inputs=config.upstream.shared_inputs,
        upload_types=compiled.upload_types,
        max_picture_pixels=config.server.max_picture_pixels,
        has_account_menu=config.server.account_menu,
        id_inputs=compiled.id_inputs,
        functions=access.functions,
        takes_workflows=access.takes_workflows,
        fetches=access.fetches,
        webhooks=access.webhooks,
        is_placed=isinstance(dependencies.catalogue, MergedCatalogue),
        recurring=dependencies.recurring,
    )
    return made


class _Usable(NamedTuple):
    """What the caller's jobs may run on. comfyuis: None where there is one, and for an admin."""

    catalogue: CatalogueSource | MergedCatalogue | PartialCatalogue
    comfyuis: tuple[Candidate, ...] | None = None


def _usable_by(dependencies: Dependencies, principal: Principal) -> _Usable:
    catalogue, placing = dependencies.catalogue, dependencies.jobs.placing
    if not isinstance(catalogue, MergedCatalogue) or placing is None or principal.is_admin:
        return _Usable(catalogue)
    settings, first = placing.open_to(principal.tenant), next(iter(catalogue.parts))
    said = [(each, catalogue.parts[each.name].snapshot) for each in settings]
    candidates = tuple(
        Candidate(each.name, snapshot.catalogue if snapshot.is_known else None, each.labels, each.name == first)
        for each, snapshot in said
    )
    return _Usable(catalogue.among(tuple(each.name for each in settings)), candidates)


async def _read_document(
    dependencies: Dependencies, permitted: PermittedRequest, context: RuleContext, held: Held
) -> RuleInput:
    """With the bounded document that the rule judges; a body that streams stays where it is, and so does one that nobody judges."""
    route, compiled, principal, call = permitted.route, permitted.compiled, permitted.principal, permitted.call
    if route.stores and not principal.is_admin:
        await dependencies.storage.remaining_bytes(principal.tenant, compiled.access_of(principal).limits.storage)
    body = route.body
    if body is Body.NONE or body is Body.STREAM:
        return RuleInput(call, context)
    if body is Body.ARGUMENTS and is_form(permitted.request):
        max_parts = compiled.config.server.max_prompt_parts
        return RuleInput(call, context, is_form=True, credentials=permitted.credentials, max_parts=max_parts)
    place = held.enter_context(dependencies.bodies.place(principal.tenant))
    limits, over = compiled.json_limits, None
    is_raw = body is Body.RAW or body is Body.ARGUMENTS
    if not is_raw and route.max_json_bytes < limits.max_bytes:
        limits, over = limits.within(route.max_json_bytes), request_body.too_large_here(route.max_json_bytes)
    raw = await request_body.read_whole(permitted.request, limits, place, over)
    permitted.record.received_bytes = len(raw)
    heavy, tenant = dependencies.heavy, principal.tenant
    if is_raw:  # the rule reads it, beside the event loop with all else that it does with it
        await heavy.space(tenant, len(raw))
        max_parts = compiled.config.server.max_prompt_parts
        return RuleInput(call, context, raw=raw, credentials=permitted.credentials, max_parts=max_parts)
    read = partial(read_document, permitted.credentials, raw, body, route.max_json_parts)
    document, raw, left_out = await heavy.run(tenant, read, len(raw))
    return RuleInput(call, context, document, raw, left_out=left_out)

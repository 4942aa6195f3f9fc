"""Carries out the rule of a route: passes the call on, rewrites it, makes several calls, answers from the cache, or relays a WebSocket."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import assert_never

from policy.call import ClientReply, UpstreamPath
from policy.idempotency import fingerprint, parse_key
from policy.left_out import told
from policy.namespace import Folder
from policy.openapi.choice import read_api
from policy.routes import (
    AdminOnly,
    Body,
    CachedReply,
    Deny,
    Idempotency,
    MultiCall,
    PassThrough,
    RelayWebSocket,
    Rewrite,
    RunFunction,
    SendFile,
    ShowDocs,
    ShowJob,
    StreamEvents,
)
from policy.rule_context import RuleContext, RuleInput
from policy.violation import Reason, Violation
from proxy.dependencies import Dependencies
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.replies import ForwardedReply, Reply, UpgradedReply
from proxy.http.responses import can_upgrade, is_upgrade
from proxy.jobs.idempotency import IDEMPOTENCY_KEY, Attempt, place_of
from proxy.jobs.rule_runner import Beforehand, RuleRunner
from proxy.observability.recent_refusals import describe_comfyuis
from proxy.pages.me import wants_html
from proxy.running_requests import RunningRequests
from proxy.steps.forward import Forwarder
from proxy.steps.function_calls import FunctionCalls
from proxy.steps.function_pages import function_page
from proxy.steps.gathering import Gathering
from proxy.steps.given_outputs import GivenOutputs
from proxy.steps.held import Held
from proxy.steps.held_upload import HeldUpload
from proxy.steps.permit import PermittedRequest
from proxy.steps.rule_input import rule_context
from proxy.steps.stored_files import StoredFiles
from proxy.steps.temp_file_owners import NotItsOwn, TempFileOwners
from proxy.v2.asset_files import GONE


class RuleApplier:
    """running: finishes what was begun for clients that have left."""

    def __init__(self, dependencies: Dependencies, running: RunningRequests) -> None:
        self._dependencies = dependencies
        self._running = running
        self._temp_file_owners = TempFileOwners(dependencies.upstream, dependencies.registry)
        self._forwarder = Forwarder(dependencies, running.check, self._temp_file_owners)
        self._stored_files = StoredFiles(
            dependencies.upstream,
            dependencies.storage,
            dependencies.tenant_files,
            dependencies.conversions,
            dependencies.copies,
        )
        self._gathering = Gathering(dependencies)
        self._calls = FunctionCalls(dependencies, running, self._forwarder, self._stored_files, self._runner)

    async def pass_on(self, permitted: PermittedRequest, held: Held) -> Reply:
        """For a call that no rule judges. Raises what Forwarder.pass_on raises."""
        if permitted.route.gather is not None and (names := self._gathering.names_for(permitted)) is not None:
            return await self._gathering.answer(permitted, None, names)
        if permitted.route.caching.is_web_ui and (kept := await self._find_kept(permitted)) is not None:
            return kept
        return await self._forwarder.pass_on(permitted, held)

    async def apply(self, permitted: PermittedRequest, asked: RuleInput, held: Held) -> Reply:
        """Raises what Forwarder.forward raises, and what the rule does."""
        if permitted.route.gather is not None and (names := self._gathering.names_for(permitted)) is not None:
            return await self._gathering.answer(permitted, asked, names)
        match permitted.rule:
            case Rewrite() as rule:
                return await self._answer(permitted, rule, asked, held)
            case MultiCall() as rule:
                reply = await self._run(permitted, rule, asked, held)
                return function_page(permitted, asked, reply) if rule.has_page else reply
            case ShowJob(rule=show):
                job = await self._dependencies.v2.door.find(permitted.principal.tenant, asked.call.parameters["job_id"])
                return show(asked, job)
            case SendFile() as rule:
                found = await self._runner(permitted).run(rule.rule(asked))
                return await self._stored_files.serve(permitted, found, held)
            case CachedReply(rule=describe, picks=picks):
                member = asked.call.parameters[picks] if picks else None
                document = await self._dependencies.document_cache.get(asked, describe, member)
                return document.answer(permitted.request.headers)
            case ShowDocs(is_negotiated=is_negotiated):
                return await self._show_docs(permitted, asked.context, is_negotiated)
            case PassThrough() | RelayWebSocket() | StreamEvents() | RunFunction() | AdminOnly() | Deny():
                raise AssertionError("passed on or relayed already, or refused by rule_for")
        assert_never(permitted.rule)

    async def _answer(self, permitted: PermittedRequest, rule: Rewrite, asked: RuleInput, held: Held) -> Reply:
        """ComfyUI's, or that with a file which it need not, or cannot, be asked for."""
        where = self._copied_file(rule, asked)
        wiped = await self._stored_files.find_copy(permitted, *where) if where is not None else None
        file: Reply | None = wiped
        if file is None and rule.on_disk is not None:
            file = await self._forwarder.find_file(permitted, asked, held)
        if file is None and where is not None:
            file = await self._stored_files.find_at_once(permitted, *where)
        if file is not None:
            return file
        try:
            reply = await self._rewrite(permitted, rule, asked, held)
        except (UpstreamUnavailable, UpstreamTimeout):
            copied = await self._stored_files.find_instead(permitted, *where) if where is not None else None
            if copied is None:
                raise
            return copied
        if where is not None and isinstance(reply, ForwardedReply) and reply.status in GONE:
            return await self._stored_files.find_left(permitted, *where) or reply
        return reply

    async def _rewrite(self, permitted: PermittedRequest, rule: Rewrite, asked: RuleInput, held: Held) -> Reply:
        """Shows a temp file that lies among everybody's as long as it is its job's; then it is a name that never was, by the same way."""
        while True:
            rewritten = rule.request(asked)
            if isinstance(rewritten, ClientReply):
                return rewritten
            path = None if rule.reads is None else rule.reads(asked)
            if path is None:
                return await self._forwarder.forward(permitted, asked, rewritten, held)
            check = partial(self._temp_file_owners.check, permitted.principal.tenant, path)
            with suppress(NotItsOwn):  # it has lost the name, so that this comes once
                return await self._forwarder.forward(permitted, asked, rewritten, held, check)

    def _copied_file(self, rule: Rewrite, asked: RuleInput) -> tuple[Folder, UpstreamPath] | None:
        """The file that is asked for, as it is or to have something made of it; None where nothing is copied."""
        if self._dependencies.copies is None:
            return None
        found = (locate(asked) for locate in (rule.on_disk, rule.source) if locate is not None)
        return next((where for where in found if where is not None), None)

    async def _show_docs(self, permitted: PermittedRequest, context: RuleContext, is_negotiated: bool) -> ClientReply:
        """What the tenant may call. Raises Violation(query-malformed), LimitExceeded(too-many-documents)."""
        dependencies, headers = self._dependencies, permitted.request.headers
        api = read_api(permitted.call)
        docs = await dependencies.docs.of(context, dependencies.heavy)
        if api == "v2":
            return docs.v2.answer(headers)
        is_json = not is_negotiated or ("format", "json") in permitted.call.query
        is_page = not is_json and wants_html(headers.get("Accept", ""))
        return (docs.page if is_page else docs.document).answer(headers)

    async def relay(self, permitted: PermittedRequest) -> UpgradedReply:
        """Makes the connection a WebSocket, which has a place of its own kind. Raises Violation(header-malformed), LimitExceeded, UpstreamUnavailable."""
        request = permitted.request
        if request.method != "GET" or not is_upgrade(request) or not can_upgrade(request):
            raise Violation(Reason.HEADER_MALFORMED, "This route is a WebSocket: send an upgrade (RFC 6455, 4.1).")
        asked = RuleInput(permitted.call, await rule_context(self._dependencies, permitted))
        return await self._dependencies.client_sockets.serve(request, permitted.record, asked)

    async def follow(self, permitted: PermittedRequest) -> Reply:
        """Tells what happens to a job, on a connection that has a place of its own kind. Raises Violation(not-found), LimitExceeded, CredentialEnded."""
        dependencies, principal = self._dependencies, permitted.principal
        permitted.compiled.access_of(principal)
        await dependencies.jobs.replica.current()
        self._running.check(principal)
        return await dependencies.v2.event_streams.serve(
            permitted.request,
            permitted.record,
            principal,
            permitted.call.parameters["job_id"],
            permitted.compiled.links_for(permitted.request),
        )

    async def call(self, permitted: PermittedRequest, held: Held) -> Reply:
        """Runs a function. Raises what FunctionCalls.serve raises."""
        return await self._calls.serve(permitted, held)

    async def _find_kept(self, permitted: PermittedRequest) -> ClientReply | None:
        is_shared = permitted.compiled.config.server.share_web_ui
        files, headers, caching = self._dependencies.web_files, permitted.request.headers, permitted.route.caching
        return await files.find(permitted.call, headers, caching, is_shared=is_shared)

    def _runner(self, permitted: PermittedRequest) -> RuleRunner:
        dependencies = self._dependencies
        return RuleRunner(
            dependencies.upstream,
            dependencies.admission,
            dependencies.jobs.results,
            permitted.principal,
            permitted.record,
            permitted.route.time_limit_s,
            self._running.check,
            dependencies.heavy,
            dependencies.v2.door,
            self._temp_file_owners,
        )

    async def _run(self, permitted: PermittedRequest, rule: MultiCall, asked: RuleInput, held: Held) -> ClientReply:
        dependencies, route, record = self._dependencies, permitted.route, permitted.record
        principal, runner = permitted.principal, self._runner(permitted)
        runner.outputs = GivenOutputs(dependencies, permitted, held)
        if route.body is Body.STREAM:
            asked = replace(asked, minted_id=str(uuid.uuid4()))
            runner.upload = HeldUpload(self._forwarder, permitted, held)
        if route.idempotency is not Idempotency.NONE and IDEMPOTENCY_KEY in permitted.request.headers:
            run = self._submit_once(permitted, rule, asked, runner)
        elif rule.is_exclusive:
            run = runner.run_exclusively(dependencies.exclusive_runs.of(principal.tenant), rule.rule(asked))
        else:
            run = runner.run(rule.rule(asked))
        # What only reads ends with its client; else many that left would go on reading.
        reply = await (run if route.method == "GET" else self._running.finish(run, permitted.request, record))
        # Who refused what is answered again stands in the trail once, under the request id of the first one.
        if reply.status >= 400 and route.submits and record.notes.get("idempotency") != "replayed":
            record.notes |= describe_comfyuis(reply)
        return told(reply, asked.left_out)

    async def _submit_once(
        self, permitted: PermittedRequest, rule: MultiCall, asked: RuleInput, runner: RuleRunner
    ) -> ClientReply:
        """Raises what the rule does, and IdempotentSubmissions.submit."""
        dependencies, principal = self._dependencies, permitted.principal
        is_single_use = permitted.route.idempotency is Idempotency.SINGLE_USE
        key = parse_key(permitted.request.headers.getall(IDEMPOTENCY_KEY))
        place = place_of(principal, key, permitted.route.name if is_single_use else "")

        async def run(beforehand: Beforehand) -> ClientReply:
            runner.beforehand = beforehand
            return await runner.run(rule.rule(asked))

        if is_single_use:
            return await dependencies.v2.keys.run(place, permitted.record, run, is_dear=not permitted.route.submits)
        hashing = partial(fingerprint, asked.call, asked.raw)
        mark = await dependencies.heavy.run(principal.tenant, hashing, len(asked.raw))
        if principal.is_admin:
            asked = replace(asked, minted_id=str(uuid.uuid4()))
        return await dependencies.idempotency.submit(Attempt(place, mark, principal, permitted.record), run)

"""Calls of functions: a job is made of what the client sends, and told of in the way that it asks for (policy/functions/delivery.py)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from policy.call import ClientReply, Effect
from policy.functions.delivery import WEBHOOK_URL, Delivery, Kind, read_delivery, read_webhook
from policy.idempotency import fingerprint, parse_key
from policy.keyform import check_names
from policy.rule_context import RuleContext, RuleInput
from policy.rules import functions
from policy.rules.function_files import Given, NotStored, discard
from policy.values import value
from proxy.dependencies import Dependencies
from proxy.http.errors import LimitExceeded
from proxy.http.replies import Reply, UpgradedReply
from proxy.http.request_record import Decision
from proxy.jobs.idempotency import IDEMPOTENCY_KEY, Attempt, place_of
from proxy.jobs.rule_runner import Beforehand, RuleRunner
from proxy.observability.recent_refusals import describe_comfyuis
from proxy.persistence.operations import DatabaseUnavailable
from proxy.running_requests import RunningRequests, is_gone
from proxy.steps.file_fetching import FileFetching
from proxy.steps.forward import Forwarder
from proxy.steps.given_outputs import GivenOutputs
from proxy.steps.held import Held
from proxy.steps.held_files import HeldFiles
from proxy.steps.permit import PermittedRequest
from proxy.steps.rule_input import read_rule_input, rule_context
from proxy.steps.stored_files import NotMadeYet, StoredFiles
from proxy.v2.job_end import Deadlines, JobEnd

ACCEPT, PREFER = "Accept", "Prefer"
_VARY = ("Vary", "Accept, Prefer")


@value
class Accepted:
    """A job that is on disk. told: what `submit` says of it. context: by which it was judged, where nobody waits for its end."""

    told: Mapping[str, Any]
    context: RuleContext | None


class FunctionCalls:
    """running: finishes what was begun for clients that have left. runner: makes one for a run of a rule."""

    def __init__(
        self,
        dependencies: Dependencies,
        running: RunningRequests,
        forwarder: Forwarder,
        stored_files: StoredFiles,
        runner: Callable[[PermittedRequest], RuleRunner],
    ) -> None:
        self._dependencies = dependencies
        self._running = running
        self._forwarder = forwarder
        self._stored_files = stored_files
        self._runner = runner
        self._deadlines = Deadlines()

    async def serve(self, permitted: PermittedRequest, held: Held) -> Reply:
        """held: given back before the client waits, with all that the call was read from.

        Raises what the steps of policy/rules/functions.py raise, and what their effects do.
        """
        headers = permitted.request.headers
        delivery = read_delivery(permitted.call, headers.getall(ACCEPT, ()), headers.getall(PREFER, ()))
        permitted.record.response_headers.append(_VARY)
        try:
            accepted = await self._accept(permitted, delivery, held)
            if isinstance(accepted, ClientReply):
                return accepted
            held.release()
            return await self._deliver(permitted, delivery, accepted, held)
        except BaseException:
            if delivery.ends_with_client and is_gone(permitted.request):
                self._left(permitted)
            raise

    async def _accept(self, permitted: PermittedRequest, delivery: Delivery, held: Held) -> ClientReply | Accepted:
        """A job that is on disk; or a refusal."""
        asked = await read_rule_input(self._dependencies, permitted, held, self._running.check)
        assert asked is not None, "a rule judges it"
        self._running.check(permitted.principal)
        functions.check_call(asked, delivery)
        lines = permitted.request.headers.getall(WEBHOOK_URL, ())
        check_names(permitted.credentials, lines, f"in `{WEBHOOK_URL}`")
        webhook = read_webhook(lines, asked.context.webhooks)
        if functions.takes_files(asked):
            asked = replace(asked, minted_id=str(uuid.uuid4()))
        run = self._submit(permitted, asked, webhook, held)
        reply = await self._running.finish(run, permitted.request, permitted.record)
        if reply.status != 200:
            if permitted.record.notes.get("idempotency") != "replayed":
                permitted.record.notes |= describe_comfyuis(reply)
            return reply
        # Whatever is said of it now: the job is on disk.
        permitted.record.decision = Decision.ACCEPTED
        permitted.record.response_headers += reply.headers
        told = orjson.loads(reply.body) if isinstance(reply.body, bytes) else reply.body
        return Accepted(told, None if delivery.wait_s else asked.context)

    async def _submit(self, permitted: PermittedRequest, asked: RuleInput, webhook: str, held: Held) -> ClientReply:
        """What comes to nothing leaves nothing behind."""
        made: list[str] = []
        is_taken = False
        try:
            steps = functions.gather(asked, webhook)
            # An id was minted where there may be files.
            run = (
                self._run_with_files(permitted, held, steps) if asked.minted_id else self._runner(permitted).run(steps)
            )
            given = await run
            made[:] = given.made
            reply = await self._submit_once(permitted, asked, given, made, held)
            is_taken = reply.status == 200 and permitted.record.notes.get("idempotency", "first") == "first"
            return reply
        except NotStored as error:
            return functions.not_stored(error)
        finally:
            if made and not is_taken:
                await self._runner(permitted).run(discard(tuple(made)))

    async def _submit_once(
        self, permitted: PermittedRequest, asked: RuleInput, given: Given, made: list[str], held: Held
    ) -> ClientReply:
        """made: gets the ids of records as they are made. Raises what the rules do, and IdempotentSubmissions.submit."""
        dependencies, principal, runner = self._dependencies, permitted.principal, self._runner(permitted)

        async def run() -> ClientReply:
            whole = given
            if given.addresses:  # not before it is known that this is no repeat
                whole = await self._run_with_files(permitted, held, functions.fetch(asked, given))
                made[:] = whole.made
            return await runner.run(functions.submit(asked, whole))

        if IDEMPOTENCY_KEY not in permitted.request.headers:
            return await run()

        async def run_first(beforehand: Beforehand) -> ClientReply:
            runner.beforehand = beforehand
            return await run()

        place = place_of(principal, parse_key(permitted.request.headers.getall(IDEMPOTENCY_KEY)))
        hashing = partial(fingerprint, asked.call, given.mark)
        mark = await dependencies.heavy.run(principal.tenant, hashing, len(given.mark))
        return await dependencies.idempotency.submit(Attempt(place, mark, principal, permitted.record), run_first)

    async def _run_with_files(
        self, permitted: PermittedRequest, held: Held, steps: Generator[Effect, Any, Given]
    ) -> Given:
        parts, runner = self._dependencies, self._runner(permitted)
        fetching = FileFetching(parts.fetches, parts.storage, parts.limiter, parts.recorder)
        runner.files = HeldFiles(self._forwarder, permitted, held, fetching)
        return await runner.run(steps)

    async def _deliver(self, permitted: PermittedRequest, delivery: Delivery, accepted: Accepted, held: Held) -> Reply:
        prompt_id = str(accepted.told["prompt_id"])
        if delivery.kind is Kind.EVENTS and (stream := await self._follow(permitted, prompt_id)) is not None:
            if delivery.ends_with_client:
                stream.at_end(partial(self._left, permitted))
            return stream
        has_ended = await self._wait(permitted, prompt_id, delivery.wait_s) if delivery.wait_s else False
        asked = RuleInput(permitted.call, accepted.context or await rule_context(self._dependencies, permitted))
        if has_ended and delivery.kind is Kind.BYTES:
            found = await self._runner(permitted).run(functions.result(asked, prompt_id, delivery))
            address = ("Content-Location", found.address)
            permitted.record.response_headers.append(address)  # before: a file that ComfyUI sends has its head at once
            try:
                return await self._stored_files.serve(permitted, found.file, held)
            except NotMadeYet:
                permitted.record.response_headers.remove(address)
                # Which is answered with 202: bytes that are none would be saved as a picture.
                delivery = replace(delivery, wait_s=0)
        telling = self._runner(permitted)
        telling.outputs = GivenOutputs(self._dependencies, permitted, held)
        return await telling.run(functions.tell(asked, accepted.told, delivery))

    async def _follow(self, permitted: PermittedRequest, prompt_id: str) -> UpgradedReply | None:
        """None where the job cannot be followed in this moment: its client is told where it is."""
        links = permitted.compiled.links_for(permitted.request)
        try:
            reply = await self._dependencies.v2.event_streams.serve(
                permitted.request, permitted.record, permitted.principal, prompt_id, links
            )
        except (LimitExceeded, DatabaseUnavailable):
            return None
        assert isinstance(reply, UpgradedReply), "of a POST"
        return reply

    async def _wait(self, permitted: PermittedRequest, prompt_id: str, limit_s: float) -> bool:
        """Whether the job has ended within that time. Who waits takes the place of a stream of events; without one nobody waits."""
        dependencies, principal = self._dependencies, permitted.principal
        try:
            slot = await dependencies.v2.slot(principal)
        except LimitExceeded:
            return False
        with slot:
            end = JobEnd()
            socket = dependencies.sockets.register(principal, end)
            dependencies.v2.streams.attach(principal.tenant, prompt_id, end)
            tick = self._deadlines.add(end, limit_s)
            try:
                return await end.has_come
            finally:
                self._deadlines.discard(tick, end)
                dependencies.sockets.remove(socket)
                end.leave()

    def _left(self, permitted: PermittedRequest) -> None:
        """Its client has left, and wants no result any more: so the job ends; but not because the gate stops."""
        prompt_id = permitted.record.notes.get("prompt_id")
        if isinstance(prompt_id, str) and not self._running.stopping.is_set():
            self._dependencies.v2.left.cancel(permitted.principal, prompt_id)

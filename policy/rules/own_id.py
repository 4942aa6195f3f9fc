"""Routes of custom nodes that keep bytes under an id which the client chose, and serve them to whoever names it: so every tenant's ids are its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policy.call import HeadJudged, Opaque, UpstreamCall, UpstreamPath, UpstreamText
from policy.own_ids import id_to_upstream, own_id
from policy.pictures import HEAD_BYTES, check_pixels
from policy.rule_context import RuleInput
from policy.rules.media import check_media


@dataclass(frozen=True, slots=True)
class OwnId:
    """place: of the id among the segments, from the end."""

    place: int

    def read(self, request: RuleInput) -> UpstreamCall:
        """GET: bytes that the tenant has put there, or that one of its jobs made."""
        return self._call(request, id_to_upstream(self._id_of(request), request.context))

    def write(self, request: RuleInput) -> UpstreamCall:
        """PUT: a picture, since nodes open it as one."""
        context = request.context

        def judge(head: bytes) -> None:
            check_media("", head, context.upload_types)
            check_pixels(head, context.max_picture_pixels)

        call = self._call(request, own_id(self._id_of(request), context.names))
        return replace(call, body=HeadJudged(judge, HEAD_BYTES))

    def _id_of(self, request: RuleInput) -> str:
        return request.call.segments[self.place]

    def _call(self, request: RuleInput, named: UpstreamPath) -> UpstreamCall:
        segments: list[UpstreamText] = [Opaque(segment) for segment in request.call.segments]
        segments[self.place] = named
        return UpstreamCall(request.call.method, tuple(segments))

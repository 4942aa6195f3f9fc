"""Answers with a file that a rule has found: from disk where the gate sees ComfyUI's folders, else as ComfyUI sends it."""

from __future__ import annotations

from typing import Final

from policy.call import ClientReply
from policy.v2.asset_files import StoredFile, StoredText
from policy.violation import Reason, Violation
from proxy.files.comfyui_folders import serve_file
from proxy.files.quota import StorageQuota
from proxy.http import hdrs, headers
from proxy.http.errors import UpstreamUnavailable
from proxy.http.file_sending import range_of
from proxy.http.replies import Reply
from proxy.http.request import Request
from proxy.http.responses import CONTENT_SECURITY_POLICY, SANDBOX
from proxy.steps.forward import forwarded
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest
from proxy.upstream.client import Upstream
from proxy.v2.asset_files import GONE
from proxy.v2.stamps import stamp_of_etag

TEXT: Final = "text/plain; charset=utf-8"


class StoredFiles:
    def __init__(self, upstream: Upstream, storage: StorageQuota) -> None:
        self._upstream = upstream
        self._storage = storage

    async def serve(self, permitted: PermittedRequest, found: StoredFile | StoredText, held: Held) -> Reply:
        """held: has ComfyUI's answer until the client's has left.

        Raises Violation(not-found) where the file is gone or was overwritten, UpstreamUnavailable, UpstreamTimeout.
        """
        caching = permitted.route.caching.value
        if isinstance(found, StoredText):
            return _text(permitted.request, found, caching)
        disk = self._storage.disk
        file = await disk.find(found.folder, found.path) if disk is not None else None
        if file is not None:
            return serve_file(file, cache_control=caching)
        fields = headers.to_upstream(permitted.request.headers, with_body=False)
        fields[hdrs.ACCEPT_ENCODING] = "identity"  # ranges are of the bytes themselves
        stream = await self._upstream.open(found.call, fields, time_limit_s=permitted.route.time_limit_s)
        held.callback(stream.close)
        stamp = stamp_of_etag(stream.headers)
        if stream.status in GONE or (stamp and found.stamp and stamp != found.stamp):
            raise Violation(
                Reason.NOT_FOUND, "The file of this asset is gone: upload it again.", error_type="asset_not_found"
            )
        if stream.status >= 500:
            raise UpstreamUnavailable
        return await forwarded(permitted, stream)


def _text(request: Request, text: StoredText, caching: str) -> ClientReply:
    """With its range, where one is asked for and nothing says that it may be of another text (RFC 9110, 13.1.5)."""
    size = len(text.body)
    is_part = request.method == "GET" and "If-Range" not in request.headers
    status, start, count = range_of(request.headers, size) if is_part else (200, 0, size)
    fields = [
        ("Content-Disposition", headers.disposition(text.name)),
        ("Cache-Control", caching),
        ("X-Content-Type-Options", "nosniff"),
        (CONTENT_SECURITY_POLICY, SANDBOX),
        ("Accept-Ranges", "bytes"),
    ]
    if status == 206:
        fields.append(("Content-Range", f"bytes {start}-{start + count - 1}/{size}"))
    elif status == 416:
        fields.append(("Content-Range", f"bytes */{size}"))
    return ClientReply(status, text.body[start : start + count], TEXT, tuple(fields))

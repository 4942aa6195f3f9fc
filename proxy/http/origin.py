"""At which origin a client sees the gate, as far as its request tells."""

from __future__ import annotations

import re
from typing import Final

from multidict import istr

from proxy.http import hdrs
from proxy.http.request import Request

_PROTO: Final = istr("X-Forwarded-Proto")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")


def origin_of(request: Request, is_proxied: bool) -> str:
    """Scheme and host (RFC 6454). is_proxied: a trusted proxy sent the request, and is believed what it says of the scheme.

    SECURITY: the host is what the client sent, so it stands in answers to that client alone, which nobody keeps for another one.
    """
    host = request.headers.get(hdrs.HOST, "")
    said = request.headers.getall(_PROTO, ()) if is_proxied else ()
    scheme = said[0].lower() if len(said) == 1 and said[0].lower() in ("http", "https") else "http"
    return f"{scheme}://{host.lower() if _HOST.fullmatch(host) else 'localhost'}"

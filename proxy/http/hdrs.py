"""Names of header fields and methods (RFC 9110), in the form in which multidict finds them quickest."""

from __future__ import annotations

from typing import Final

from multidict import istr

METH_CONNECT: Final = "CONNECT"
METH_GET: Final = "GET"
METH_HEAD: Final = "HEAD"

ACCEPT: Final = istr("Accept")
ACCEPT_ENCODING: Final = istr("Accept-Encoding")
ACCEPT_RANGES: Final = istr("Accept-Ranges")
CACHE_CONTROL: Final = istr("Cache-Control")
CONTENT_DISPOSITION: Final = istr("Content-Disposition")
CONTENT_ENCODING: Final = istr("Content-Encoding")
CONTENT_LENGTH: Final = istr("Content-Length")
CONTENT_TRANSFER_ENCODING: Final = istr("Content-Transfer-Encoding")
CONTENT_TYPE: Final = istr("Content-Type")
ETAG: Final = istr("ETag")
EXPECT: Final = istr("Expect")
HOST: Final = istr("Host")
IF_NONE_MATCH: Final = istr("If-None-Match")
IF_RANGE: Final = istr("If-Range")
LAST_MODIFIED: Final = istr("Last-Modified")
RANGE: Final = istr("Range")
SERVER: Final = istr("Server")
SET_COOKIE: Final = istr("Set-Cookie")
TRANSFER_ENCODING: Final = istr("Transfer-Encoding")
UPGRADE: Final = istr("Upgrade")
USER_AGENT: Final = istr("User-Agent")
VARY: Final = istr("Vary")
WWW_AUTHENTICATE: Final = istr("WWW-Authenticate")

"""The address of Redis: read strictly, since a password with a raw `/` would be taken for a host and be told in the log; and tried by `check`."""

from __future__ import annotations

import asyncio
import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

_DATABASE: Final = re.compile(r"(/\d{0,4})?")
_FIELDS: Final = frozenset(
    {
        "client_name",
        "db",
        "protocol",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
    }
)
_SHAPE: Final = "write redis://[user:password@]host:6379/0, with / ? # @ : in user and password percent-encoded (%2F %3F %23 %40 %3A)"


def check_redis_url(text: str) -> str:
    """The address, when it can be read in one way only. Raises ValueError with a sentence that holds no part of it but the name of a field."""
    parts = urlsplit(text)
    user_info, at, _ = parts.netloc.rpartition("@")
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(_SHAPE)
    try:
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    is_one_reading = not parts.fragment and _DATABASE.fullmatch(parts.path) and "@" not in user_info
    if not has_host or not is_one_reading or (at and not user_info) or "@" in parts.query + parts.path:
        raise ValueError(_SHAPE)
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _FIELDS:
            raise ValueError(
                f"the field {name[:40]!r} of the address is not known here; {_SHAPE}" if name.isidentifier() else _SHAPE
            )
    return text


async def try_redis(text: str, timeout_s: float) -> str | None:
    """Why Redis cannot be used, in words without the password; None when it answers."""
    from redis.asyncio import Redis  # only where there is one to be tried
    from redis.exceptions import RedisError

    parts = urlsplit(check_redis_url(text))
    where = f"{parts.hostname}:{parts.port or 6379}"
    client: Redis = Redis.from_url(text, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    try:
        async with asyncio.timeout(2 * timeout_s):
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
    except (RedisError, OSError, ValueError, TypeError) as error:
        return f"Redis at {where} does not answer ({type(error).__name__}): the gate would limit by its own memory"
    finally:
        await client.aclose()
    return None

"""The address of PostgreSQL: read strictly, since a password with a raw `/` would be taken for a host and be told in the log."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT: Final = 5432
_SCHEMES: Final = ("postgresql", "postgres")
_DATABASE: Final = re.compile(r"/[A-Za-z0-9_.-]{1,63}")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FIELDS: Final = frozenset({"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey"})
_SHAPE: Final = (
    "write postgresql://[user[:password]@]host:5432/database, with / ? # @ : in user and password percent-encoded "
    "(%2F %3F %23 %40 %3A), or postgresql:///database?host=/run/postgresql for a socket of this machine"
)


class PostgresAddress(NamedTuple):
    """host: a name, an address, or the folder of a socket. user and password: None where the driver finds them itself. fields: of TLS."""

    host: str
    port: int
    database: str
    user: str | None
    password: str | None
    fields: dict[str, str]

    @property
    def place(self) -> str:
        """What a log line may call it."""
        if self.host.startswith("/"):
            return f"postgresql:///{self.database}?host={self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{host}:{self.port}/{self.database}"

    @property
    def is_open_to_the_network(self) -> bool:
        """Whether what goes there crosses a network without a proof of who answers."""
        if self.host.startswith("/") or self.host == "localhost":
            return False
        try:
            is_loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            is_loopback = False
        return not is_loopback and self.fields.get("sslmode") not in ("verify-ca", "verify-full")


def read_postgres_url(text: str) -> PostgresAddress:
    """The address, when it can be read in one way only. Raises ValueError with a sentence that holds no part of it but the name of a field."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_SHAPE) from None
    user_info, at, hosts = parts.netloc.rpartition("@")
    is_one_reading = not parts.fragment and _DATABASE.fullmatch(parts.path) and "@" not in user_info + parts.query
    if parts.scheme not in _SCHEMES or not is_one_reading or "," in hosts or (at and not user_info):
        raise ValueError(_SHAPE)
    fields = _fields_of(parts.query)
    if "port" in fields:
        port = _port_of(fields.pop("port"))
    socket = fields.pop("host", None)
    if (socket is None) == (not host) or (socket is not None and not socket.startswith("/")) or port == 0:
        raise ValueError(_SHAPE)
    user, _, password = user_info.partition(":")
    return PostgresAddress(
        host or str(socket),
        DEFAULT_PORT if port is None else port,
        parts.path[1:],
        unquote(user) or None,
        unquote(password) or None,
        fields,
    )


def check_postgres_url(text: str) -> str:
    """Raises ValueError as `read_postgres_url` does."""
    read_postgres_url(text)
    return text


def _fields_of(query: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _FIELDS:
            known = f"the field {name[:40]!r} of the address is not known here; {_SHAPE}"
            raise ValueError(known if name.isidentifier() else _SHAPE)
        if name in fields or not value:
            raise ValueError(f"the field {name!r} of the address stands there twice, or without a value")
        fields[name] = value
    if fields.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(_SSL_MODES)}")
    return fields


def _port_of(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,4}", text) or int(text) > 65535:
        raise ValueError(_SHAPE)
    return int(text)

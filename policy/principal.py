"""Who a caller is once it is proven: a tenant, a role and scopes. Authentication makes principals, rules only read them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

TenantId = NewType("TenantId", str)

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def parse_tenant(text: str) -> TenantId:
    """A tenant id is a lower-case slug, so that no file system, key or log can take two of them for one.

    Raises ValueError when it is not.
    """
    if not _TENANT.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a tenant name: use lower-case letters, digits and '-', at most 63, not '-' first"
        )
    return TenantId(text)


class Role(StrEnum):
    USER = "user"
    ADMIN = "admin"


class Scope(StrEnum):
    """What a credential may be narrowed to."""

    JOBS_SUBMIT = "jobs:submit"
    JOBS_READ = "jobs:read"
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    CATALOG_READ = "catalog:read"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """The proven caller.

    subject: the key's id, or the token's subject: what limits, sockets and logs are counted by.
    expires_at_s: Unix time after which the credential is dead, None for never.
    beside: the same caller by the other credentials of its request, which are to be good as well.
    """

    subject: str
    tenant: TenantId
    role: Role = Role.USER
    scopes: frozenset[Scope] = ALL_SCOPES
    expires_at_s: float | None = None
    is_session: bool = False
    beside: tuple[Principal, ...] = field(default=(), repr=False, compare=False)

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    def covers(self, earlier: Principal) -> bool:
        """Whether this is the same caller as that one, and may do all that it might."""
        return (
            self.subject == earlier.subject
            and self.tenant == earlier.tenant
            and (self.is_admin or not earlier.is_admin)
            and self.scopes >= earlier.scopes
        )

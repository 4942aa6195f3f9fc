"""Which limits hold for whom: the configuration's named limits, replaced as a whole on a reload."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from policy.principal import Principal
from proxy.config.limits import LimitSettings, LimitsSettings

_NO_KEYS: Final[Mapping[tuple[str, str], str]] = MappingProxyType({})


class LimitStatus(NamedTuple):
    """One limit as its owner may see it. size: in words, "30/minute"; renews_in_s: None for what does not renew by time."""

    name: str
    size: str
    total: float
    remaining: float
    renews_in_s: float | None = None


class EffectiveLimits:
    """Limits by tenant, and by key where a key names some.

    version: grows with every reload, so that what was derived from the limits is derived anew.
    """

    def __init__(
        self, settings: LimitsSettings, tenants: Mapping[str, str], keys: Mapping[tuple[str, str], str] = _NO_KEYS
    ) -> None:
        """tenants: the name of each tenant's limits; keys: the name of a key's limits, by tenant and key id."""
        self.version = 0
        self.apply(settings, tenants, keys)

    def apply(
        self, settings: LimitsSettings, tenants: Mapping[str, str], keys: Mapping[tuple[str, str], str] = _NO_KEYS
    ) -> None:
        self._named = dict(settings.named)
        self._tenants = {tenant: self.of_name(name) for tenant, name in tenants.items()}
        self._default = self.of_name("default")
        self._keys = dict(keys)
        self.version += 1

    @property
    def tenants(self) -> tuple[str, ...]:
        return tuple(self._tenants)

    def of_tenant(self, tenant: str) -> LimitSettings:
        """A tenant without a name of its own, such as one just removed, has the default limits."""
        return self._tenants.get(tenant) or self._default

    def of_key(self, principal: Principal) -> LimitSettings | None:
        """What the caller's key names, None where it names nothing."""
        name = self._keys.get((principal.tenant, principal.subject))
        return None if name is None else self.of_name(name)

    def of_name(self, name: str) -> LimitSettings:
        return self._named.get(name) or self._named.get("default") or LimitSettings()

    def weights(self) -> dict[str, float]:
        """For policy.fairness: each tenant's share of the GPU."""
        return {tenant: self.of_tenant(tenant).weight for tenant in self._tenants}


def digest_of(principal: Principal) -> str:
    """The caller's credential in a counter's name: a subject may be any text of a token; its digest is as unique, short, and nobody's name in Redis."""
    return hashlib.sha256(f"{principal.tenant}\n{principal.subject}".encode(errors="replace")).hexdigest()[:32]

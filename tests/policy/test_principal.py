from __future__ import annotations

import pytest

from policy.principal import ALL_SCOPES, Principal, Role, Scope, TenantId, parse_tenant


@pytest.mark.parametrize("text", ["a", "0", "acme", "acme-2", "a-", "x" * 63])
def test_slugs_are_tenants(text: str) -> None:
    assert parse_tenant(text) == text


@pytest.mark.parametrize(
    "text", ["", "-a", "ACME", "Acme", "a.b", "a/b", "a_b", "a b", "a\n", "\u00e9", "x" * 64, "..", "\uff41", "a\x00"]
)
def test_what_two_programs_could_take_for_two_tenants_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a tenant name"):
        parse_tenant(text)


def test_a_principal_is_a_user_with_every_scope_unless_said_otherwise() -> None:
    user = Principal("key", TenantId("acme"))
    assert not user.is_admin
    assert user.scopes == ALL_SCOPES == frozenset(Scope)
    assert Principal("key", TenantId("acme"), Role.ADMIN).is_admin

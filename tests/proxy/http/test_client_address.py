"""Whose address a request has: nobody can choose another's."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from multidict import CIMultiDict

from proxy.http import client_address
from proxy.http.client_address import ClientAddresses, block_of, parse_address

TRUSTED = (ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("10.1.0.0/16"))
Fields = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("peer", "fields", "expected"),
    [
        ("127.0.0.1", [("CF-Connecting-IP", "203.0.113.9")], "203.0.113.9"),
        ("::1", [("cf-connecting-ip", "2001:DB8::9")], "2001:db8::9"),
        ("::ffff:127.0.0.1", [("CF-Connecting-IP", "203.0.113.9")], "203.0.113.9"),
        ("10.1.2.3", [("CF-Connecting-IP", " 203.0.113.9")], "10.1.2.3"),
        ("198.51.100.7", [("CF-Connecting-IP", "203.0.113.9")], "198.51.100.7"),
        ("10.2.0.1", [("CF-Connecting-IP", "203.0.113.9")], "10.2.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [("CF-Connecting-IP", "203.0.113.9"), ("CF-Connecting-IP", "198.51.100.1")], "127.0.0.1"),
        ("127.0.0.1", [("CF-Connecting-IP", "203.0.113.9, 198.51.100.1")], "127.0.0.1"),
        ("127.0.0.1", [("CF-Connecting-IP", "")], "127.0.0.1"),
        ("127.0.0.1", [("CF-Connecting-IP", "localhost")], "127.0.0.1"),
        ("127.0.0.1", [("X-Forwarded-For", "203.0.113.9"), ("X-Real-IP", "203.0.113.9")], "127.0.0.1"),
        ("127.0.0.1", [("True-Client-IP", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")], "127.0.0.1"),
        ("127.0.0.1", [("CF_Connecting_IP", "203.0.113.9")], "127.0.0.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("no address", [("CF-Connecting-IP", "203.0.113.9")], "no address"),
        (None, [("CF-Connecting-IP", "203.0.113.9")], "unknown"),
    ],
)
def test_only_cloudflares_one_value_from_a_trusted_peer_counts(peer: str | None, fields: Fields, expected: str) -> None:
    assert ClientAddresses(TRUSTED).of(peer, CIMultiDict(fields)) == expected


def test_a_zone_is_no_part_of_an_address_however_long_it_is() -> None:
    for length in (1, 100):
        fields = CIMultiDict([("CF-Connecting-IP", f"2001:db8::9%{'z' * length}")])
        assert ClientAddresses(TRUSTED).of("127.0.0.1", fields) == "2001:db8::9"


def test_only_short_texts_of_clients_are_remembered() -> None:
    addresses, before = ClientAddresses(TRUSTED), client_address._kept_form.cache_info()
    for number in range(100):
        addresses.of("127.0.0.1", CIMultiDict([("CF-Connecting-IP", f"{number}{'x' * 5000}")]))
    assert client_address._kept_form.cache_info() == before
    assert before.maxsize == 4096


def test_peers_are_remembered_in_a_bounded_table() -> None:
    addresses = ClientAddresses(TRUSTED)
    for index in range(10_000):
        assert addresses.of(f"198.51.{index >> 8}.{index & 255}", CIMultiDict()) == f"198.51.{index >> 8}.{index & 255}"
    assert len(addresses._peers) <= 4096
    assert addresses.of("127.0.0.1", CIMultiDict([("CF-Connecting-IP", "203.0.113.9")])) == "203.0.113.9"


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("unknown", "unknown"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_ipv6_is_counted_by_64(address: str, block: str) -> None:
    assert block_of(address) == block


@pytest.mark.parametrize("text", ["", "203.0.113", "0x7f.1", "203.0.113.9:80", "[::1]", "203.0.113.09"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None

"""Addresses that a tenant's endpoint may have, by what else they could mean."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from policy.public_addresses import is_private, is_public, plain

PUBLIC = (
    "1.0.0.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "192.167.255.255",
    "223.255.255.254",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450::1",
)
PRIVATE = ("10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "172.16.0.1", "192.168.1.1", "::1", "fd12::1")
NEVER = (
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",  # metadata of most clouds
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "161.26.0.10",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::8.8.8.8",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::",
    "3fff::1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
    "4000::1",
    "5f00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
)


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))
    assert not is_private(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_of_private_networks_are_private(text: str) -> None:
    assert is_private(ip_address(text))
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", NEVER)
def test_others_are_neither(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not is_private(ip_address(text))


def test_an_address_of_the_internet_with_a_zone_is_not_public() -> None:
    assert not is_public(ip_address("2606:4700::1%eth0"))


@pytest.mark.parametrize(
    ("text", "found"), [("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_disguises_are_seen_through(text: str, found: str) -> None:
    assert str(plain(ip_address(text))) == found


def test_a_disguise_is_as_private_as_what_it_hides_and_never_public() -> None:
    assert is_private(ip_address("::ffff:10.0.0.1"))
    assert not is_private(ip_address("::ffff:169.254.169.254"))
    assert not is_public(ip_address("::ffff:8.8.8.8"))

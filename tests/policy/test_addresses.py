"""Addresses that tenants name: what is read, which hosts are permitted, and what no two readers would mean the same by."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from policy.addresses import (
    MAX_CHARACTERS,
    Address,
    AddressRefused,
    HostPattern,
    follow,
    is_web_address,
    parse_host_pattern,
    read_address,
)

ANY = (HostPattern("*"), HostPattern("*", 8443))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://images.example.com/a.png", Address("images.example.com", 443, "/a.png")),
        ("HTTPS://Images.Example.COM", Address("images.example.com", 443, "/")),
        ("https://a.example:443/", Address("a.example", 443, "/")),
        ("https://a.example:8443?x", Address("a.example", 8443, "/?x")),
        ("https://a.example/%C3%BC/b%2Fc?x=%20&y=[1]|{2}#top", Address("a.example", 443, "/%C3%BC/b%2Fc?x=%20&y=[1]|{2}")),
        ("https://a_b.s3.example/x@y:z", Address("a_b.s3.example", 443, "/x@y:z")),
        ("https://localhost/", Address("localhost", 443, "/")),
        ("https://xn--bcher-kva.example/", Address("xn--bcher-kva.example", 443, "/")),
    ],
)  # fmt: skip
def test_an_address(text: str, address: Address) -> None:
    assert read_address(text, ANY) == address
    assert read_address(address.url, ANY) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "http://a.example/",
        "ftp://a.example/",
        "//a.example/",
        "https:/a.example/",
        "https:a.example",
        "https://a@a.example/",
        "https://a:b@a.example/",
        "https://a.example\\@b.example/",
        "https://a.example/\\b",
        "https://a.example/a b",
        "https://a.example/\n",
        "https://a.example/\u00fc",
        "https://b\u00fccher.example/",
        "https://\u212aelvin.example/",
        "https://a\u3002example/",
        "https://a.example./",
        "https://.example/",
        "https://a..example/",
        "https://a.example:/",
        "https://a.example:0/",
        "https://a.example:65536/",
        "https://a.example:443443/",
        "https://%61.example/",
        " https://a.example/",
        'https://a.example/"',
        "https://a.example/<x>",
        "https://a.example/`",
        f"https://{'a' * 64}.example/",
        f"https://{'.'.join(['a' * 60] * 5)}/",
        "https://a.example/" + "x" * MAX_CHARACTERS,
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(AddressRefused):
        read_address(text, ANY)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("127.0.0.1", id="four parts"),
        pytest.param("127.1", id="two parts"),
        pytest.param("2130706433", id="one"),
        pytest.param("0x7f000001", id="base 16"),
        pytest.param("0x7f.1", id="base 16 in parts"),
        pytest.param("a.0x", id="an empty one"),
        pytest.param("a.example.1", id="behind a name"),
    ],
)
def test_a_number_is_no_name(host: str) -> None:
    with pytest.raises(AddressRefused, match="and not its number"):
        read_address(f"https://{host}/", ANY)


def test_an_address_in_brackets_is_none() -> None:
    for host in ("[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]"):
        with pytest.raises(AddressRefused):
            read_address(f"https://{host}/", ANY)


@pytest.mark.parametrize(
    ("pattern", "url", "is_permitted"),
    [
        ("images.example.com", "https://images.example.com/", True),
        ("Images.Example.com", "https://IMAGES.example.com/", True),
        ("images.example.com", "https://a.images.example.com/", False),
        ("images.example.com", "https://images.example.com.evil.test/", False),
        ("images.example.com", "https://images.example.com:8443/", False),
        ("images.example.com:8443", "https://images.example.com:8443/", True),
        ("images.example.com:8443", "https://images.example.com/", False),
        ("*.example.org", "https://a.example.org/", True),
        ("*.example.org", "https://a.b.example.org/", True),
        ("*.example.org", "https://example.org/", False),
        ("*.example.org", "https://evilexample.org/", False),
        ("*", "https://anything.test/", True),
        ("*", "https://anything.test:8443/", False),
        ("*:8443", "https://anything.test:8443/", True),
    ],
)
def test_which_hosts_are_permitted(pattern: str, url: str, is_permitted: bool) -> None:
    hosts = (parse_host_pattern(pattern),)
    if is_permitted:
        assert read_address(url, hosts).host
    else:
        with pytest.raises(AddressRefused, match="not among those that you may name: "):
            read_address(url, hosts)


def test_where_nothing_is_permitted_nothing_is() -> None:
    with pytest.raises(AddressRefused, match="there are none"):
        read_address("https://a.example/", ())
    many = tuple(HostPattern(f"{number}.example") for number in range(12))
    with pytest.raises(AddressRefused, match=r"0\.example, .* and 4 more"):
        read_address("https://a.example/", many)


@pytest.mark.parametrize(
    "text",
    [
        *("", "*.", "**", "*a.example", "a.*.example", "https://a.example", "a.example/", "a b", "b\u00fccher.example"),
        *("a.example:0", "a.example:x", "10.0.0.1", "*.1", "[::1]", "a" * 64, ".".join(["a" * 60] * 5)),
    ],
)  # fmt: skip
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_host_pattern(text)


@pytest.mark.parametrize("text", ["a.example", "*.a.example:8443", "*", "*:8443"])
def test_a_pattern_is_told_as_it_is_written(text: str) -> None:
    assert str(parse_host_pattern(text)) == text


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?c", "https://a.example/b?c"),
        ("b", "https://a.example/x/b"),
        ("../b", "https://a.example/b"),
        ("//b.example/", "https://b.example/"),
        ("https://b.example:8443/c#d", "https://b.example:8443/c"),
        ("", "https://a.example/x/y?z"),
        ("http://b.example/", None),
        ("//b@b.example/", None),
        ("https://127.0.0.1/", None),
        ("https://[::1", None),
        ("https://b.example:444/", None),
        ("/\u00fc", None),
        ("javascript:1", None),
    ],
)
def test_where_a_redirect_leads(location: str, url: str | None) -> None:
    here = read_address("https://a.example/x/y?z", ANY)
    if url is None:
        with pytest.raises(AddressRefused, match="to an address that you may not name"):
            follow(here, location, ANY)
    else:
        assert follow(here, location, ANY).url == url


def test_what_means_to_be_an_address() -> None:
    assert is_web_address("https://x")
    assert is_web_address("HTTP://x")
    assert not is_web_address("data:x")
    assert not is_web_address("00000000-0000")


@given(
    st.text(alphabet="aB1.-:/?#[]@\\%\u00fc\u3002x0 ", max_size=24),
    st.sampled_from(["https://", "HTTPS://", "https:///"]),
)
def test_every_reader_means_the_same_host_by_what_is_read(text: str, scheme: str) -> None:
    try:
        address = read_address(scheme + text, (HostPattern("*"),))
    except AddressRefused:
        return
    split, url = urlsplit(address.url), URL(address.url, encoded=True)
    assert split.hostname == url.host == address.host
    assert split.username is url.user is None
    assert (url.port, url.scheme) == (443, "https")
    assert url.raw_path_qs in (address.target, address.target.removesuffix("?"))

"""Redis's address is read in one way or not at all, and its password is told nowhere."""

from __future__ import annotations

import socket

import pytest

from proxy.config.limits import LimitsSettings
from proxy.config.redis_url import check_redis_url, try_redis
from tests.proxy.conftest import RedisServer

GOOD = [
    "redis://127.0.0.1:6379/0",
    "redis://redis",
    "rediss://user:pa%2Fss%40@redis.example:6380/1",
    "redis://:secret@[::1]:6379",
    "redis://h:1/?protocol=3&client_name=gate",
    "rediss://h/0?ssl_cert_reqs=required",
]
BAD = [
    "redis://:hidden/word@host:6379/0",
    "redis://:hidden?word@host:6379/0",
    "redis://:hidden#word@host:6379/0",
    "redis://:hidden@word@host:6379/0",
    "redis://:hidden@host:port/0",
    "redis://:hidden@host:99999/0",
    "redis://:hidden@/0",
    "redis://:hidden@host/db0",
    "redis://:hidden@host/0?timeout=5",
    "redis://:hidden@host/0?hidden-word=1",
    "redis://@host/0",
    "http://:hidden@host",
]


@pytest.mark.parametrize("text", GOOD)
def test_addresses_that_can_be_read(text: str) -> None:
    assert check_redis_url(text) == text
    assert LimitsSettings(storage=text).storage == text


@pytest.mark.parametrize("text", BAD)
def test_others_are_refused_in_a_sentence_without_the_password(text: str) -> None:
    with pytest.raises(ValueError, match="redis://") as caught:
        check_redis_url(text)
    for part in ("hidden", "word"):
        assert part not in str(caught.value).replace("password", "")


async def test_an_address_is_tried(redis: RedisServer) -> None:
    assert await try_redis(redis.url, 5.0) is None


async def test_a_redis_that_is_not_there_is_said_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        said = await try_redis(f"redis://:hidden@127.0.0.1:{taken.getsockname()[1]}/0", 0.5)
    assert said is not None
    assert "does not answer" in said
    assert "hidden" not in said

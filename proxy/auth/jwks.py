"""The public keys of a token issuer: fetched over HTTP, kept, renewed, and served stale while the issuer is down.

Trusts the configured URL (https, or this machine) and nothing that a token says: a kid is only a key of a dictionary.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from proxy.auth.jwks_download import download
from proxy.auth.key_set import KeySet, VerificationKey, read_key_set
from proxy.config.identity import is_safe_url
from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")

ASK_INTERVAL_S: Final = 60.0
"""An unknown kid makes the gate ask the issuer at most this often: kids are free to invent, requests are not."""

_FIRST_RETRY_S: Final = 5.0
_RENEW_AFTER: Final = 0.8  # of the lifetime, so that a slow issuer is asked before the keys are old
_NO_KEYS: Final = KeySet()


class Jwks:
    """The JWK set behind one URL.

    At most one fetch runs at a time, and everybody who needs it waits for that one, never longer than timeout_s.
    Known keys are never waited for. monotonic: seconds of a clock that only runs forward.
    Raises ValueError when the URL is neither https nor on this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        lifetime_s: float = 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not is_safe_url(url):
            raise ValueError("the URL of the keys must be https (http only for this machine)")
        self.url = url
        # Some issuers want an API key in the query: the log gets no query and no user.
        parts = urlsplit(url)
        self._shown_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._timeout_s = timeout_s
        self._renew_after_s = max(1.0, _RENEW_AFTER * lifetime_s)
        self._monotonic = monotonic
        self._sleep = sleep
        self._keys: KeySet | None = None
        self._digest = b""
        self._generation = 0
        self._read_at_s = -math.inf
        self._tried_at_s = -math.inf
        self._asked_at_s = -math.inf
        self._failures = 0
        self._why = ""
        self._fetch: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._tasks = Tasks()

    @property
    def shown_url(self) -> str:
        """Without query and user, which may be secret."""
        return self._shown_url

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def is_ready(self) -> bool:
        return self._keys is not None

    def adopt(self, previous: Jwks) -> None:
        """Takes over what a predecessor of the same URL knows, so that a reload while the issuer is down locks nobody out."""
        self._keys, self._digest, self._generation = previous._keys, previous._digest, previous._generation
        self._read_at_s, self._tried_at_s = previous._read_at_s, previous._tried_at_s
        self._asked_at_s, self._failures = previous._asked_at_s, previous._failures

    async def start(self) -> None:
        """Begins to fetch the keys and to renew them before they are old. Returns at once, whatever the issuer does."""
        self._is_stopped = False
        self._tasks.supervise(self._renew, "jwks renewal")

    async def try_once(self) -> str | None:
        """One fetch. Why the keys cannot be read, None when they can."""
        await asyncio.wait({self._start_fetch()})
        return self._why if self._failures else None

    async def stop(self) -> None:
        """Ends all fetching. Known keys can still be found, so that running requests finish."""
        self._is_stopped = True
        await self._tasks.stop()

    async def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """The keys of this kid; for an unknown kid after asking the issuer, if that is allowed again."""
        now_s = self._monotonic()
        is_due = not self._is_stopped and now_s >= self._due_at_s()
        if found := (self._keys or _NO_KEYS).find(kid):
            if is_due:
                self._start_fetch()
            return found
        had_keys = self._keys is not None
        may_ask = had_keys and not self._is_stopped and now_s >= self._asked_at_s + ASK_INTERVAL_S
        if not (is_due or may_ask or self._is_fetching()):
            return ()
        self._asked_at_s = now_s
        # Not `await fetch`: a request that is cancelled must not take the others' fetch with it.
        await asyncio.wait({self._start_fetch()}, timeout=self._timeout_s)
        found = (self._keys or _NO_KEYS).find(kid)
        if found and not had_keys:
            self._asked_at_s = -math.inf  # The very first fetch was not for an unknown kid.
        return found

    def has(self, key: VerificationKey) -> bool:
        """While none could be read, none is."""
        return (self._keys or _NO_KEYS).has(key)

    def _due_at_s(self) -> float:
        """When the keys should be fetched (again), nobody asking."""
        if self._failures and self._keys is not None:
            return self._tried_at_s + ASK_INTERVAL_S
        if self._failures:
            # Without any key nobody gets in: try again soon, then ever more rarely.
            return self._tried_at_s + min(_FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10), ASK_INTERVAL_S)
        return self._read_at_s + self._renew_after_s

    def _is_fetching(self) -> bool:
        return self._fetch is not None and not self._fetch.done()

    def _start_fetch(self) -> asyncio.Task[None]:
        """The fetch that runs, or else a new one."""
        if self._fetch is None or self._fetch.done():
            self._fetch = self._tasks.start(self._read(), "jwks-fetch")
        return self._fetch

    async def _renew(self) -> None:
        while True:
            while (pause_s := self._due_at_s() - self._monotonic()) > 0:
                await self._sleep(pause_s)
            await asyncio.wait({self._start_fetch()})

    async def _read(self) -> None:
        """One fetch. What goes wrong is logged once until it goes right again, and the known keys stay."""
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await download(self.url)
            keys = read_key_set(body)
        except TimeoutError:
            self._fail(f"no whole answer within {self._timeout_s:g} s")
        except aiohttp.ClientConnectionError as error:
            self._fail(str(error))
        except aiohttp.ClientError as error:
            self._fail(type(error).__name__)  # Its text would hold the whole URL.
        except (OSError, ValueError) as error:
            self._fail(str(error))
        else:
            if self._failures:
                _log.info("keys at %s can be read again", self._shown_url)
            self._failures = 0
            self._read_at_s = self._monotonic()
            digest = hashlib.sha256(body).digest()
            if digest != self._digest:
                self._keys, self._digest = keys, digest
                self._generation += 1

    def _fail(self, why: str) -> None:
        self._failures += 1
        self._why = why
        self._tried_at_s = self._monotonic()
        if self._failures == 1:
            consequence = (
                "the known keys stay in use" if self._keys else "its tokens are refused until they can be read"
            )
            _log.warning("keys at %s cannot be read: %s; %s", self._shown_url, why, consequence)

"""The only door to addresses that somebody else than ComfyUI answers at, on a tenant's behalf. Each connection is looked at when its socket is made, so
it does not matter which name led there, nor what the name meant a moment ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from ipaddress import ip_address
from threading import Thread
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from yarl import URL

from policy.public_addresses import plain
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.outside.target import Answer, Target, Unreachable
from proxy.tasks import Tasks

LOOKUPS_AT_ONCE: Final = 4
"""Of one tenant, each in a thread of its own: a name server that does not answer holds up nobody else."""
READ_BYTES: Final = 4096
"""Of an answer, before anybody asks for more."""

MAX_INTERIM: Final = 16
"""Answers before the one that counts (RFC 9110, 15.2)."""

T = TypeVar("T")
Place = tuple[str, int]
"""A host, and a port."""


class OutsideDoor:
    """own: where ComfyUI and the gate itself listen; nobody is sent there, whatever else is permitted. trust: whose certificates are believed, None for
    those that the machine trusts."""

    def __init__(self, own: Callable[[], Iterable[Place]], trust: ssl.SSLContext | None = None) -> None:
        self._own = own
        self._resolver: AbstractResolver = _Resolver()
        self._lookups = KeyedSemaphore(LOOKUPS_AT_ONCE)
        self._looking = Tasks(is_watched=True)
        self._trust: ssl.SSLContext | bool = True if trust is None else trust

    async def post(self, target: Target, body: bytes, headers: Mapping[str, str], time_limit_s: float) -> Answer:
        """Sends a body, follows no redirect, and reads no more than the head of the answer. Raises Unreachable."""
        try:
            async with asyncio.timeout(time_limit_s), AsyncExitStack() as stack:
                response = await self.ask(stack, "POST", target, headers, body)
                return Answer(response.status, response.headers.get("Retry-After"))
        except TimeoutError:
            raise Unreachable(f"no answer within {time_limit_s:g} s") from None

    async def ask(
        self,
        stack: AsyncExitStack,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        buffer_bytes: int = READ_BYTES,
    ) -> aiohttp.ClientResponse:
        """The head of an answer, on a connection of its own; a redirect is one too. stack: closes it. buffer_bytes: read before anybody asks for more.

        Raises Unreachable.
        """
        refused: list[str] = []
        names = _Turns(self._resolver, self._lookups, self._looking, target.tenant)
        own = await self._own_addresses(names)
        session = self._session(names, partial(_make_socket, target, own, refused), buffer_bytes)
        stack.push_async_callback(session.close)
        url = URL(target.url, encoded=True)  # as it was judged
        with translated():
            try:
                response = await session.request(method, url, data=body, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectorError:
                if refused:
                    raise Unreachable(refused[0]) from None
                raise
        stack.callback(response.close)
        if (connection := response.connection) is not None and connection.transport is not None:
            # In order it would end when the other side agrees to it, or after half a minute.
            stack.callback(connection.transport.abort)
        return response

    def _session(
        self, names: AbstractResolver, make_socket: Callable[[Any], socket.socket], buffer_bytes: int
    ) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=names,
            socket_factory=make_socket,
            ssl=self._trust,
            force_close=True,
            limit=1,
            use_dns_cache=False,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=buffer_bytes,
            response_class=_Response,
        )

    async def stop(self) -> None:
        await self._looking.stop()

    async def _own_addresses(self, names: AbstractResolver) -> set[Place]:
        found: set[Place] = set()
        for host, port in self._own():
            with contextlib.suppress(OSError):
                found |= {(_unwrapped(each["host"]), port) for each in await names.resolve(host, port)}
        return found


@contextmanager
def translated() -> Iterator[None]:
    """What a connection breaks with, as Unreachable; but for TimeoutError."""
    try:
        yield
    except TimeoutError:
        raise
    except aiohttp.ClientConnectorCertificateError:
        raise Unreachable("its certificate is not valid") from None
    except aiohttp.ClientConnectorDNSError:
        raise Unreachable("its name has no address") from None
    except OSError as error:  # aiohttp.ClientOSError is one
        raise Unreachable(error.strerror or "the connection was lost") from None
    except aiohttp.ServerDisconnectedError:
        raise Unreachable("the connection was lost") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise Unreachable(f"the answer cannot be read ({type(error).__name__})") from None


def _make_socket(target: Target, own: set[Place], refused: list[str], info: Any) -> socket.socket:
    """For one connection. refused: gets why there may be none. Raises OSError."""
    family, kind, protocol, _, (address, port, *_) = info
    objection = target.objection_to(address, port)
    if objection is None and (_unwrapped(address), port) in own:
        objection = f"{address} port {port} is ComfyUI's or the gate's own"
    if objection is None and port in {each for _, each in own} and _is_of_this_machine(family, address):
        objection = f"{address} port {port} is this machine's, where ComfyUI or the gate listens"
    if objection is not None:
        refused.append(objection)
        raise OSError(None, objection)
    return socket.socket(family, kind, protocol)


class _Response(aiohttp.ClientResponse):
    """SECURITY: aiohttp reads interim answers as long as they come, thousands in each turn of the loop (tests/proxy/outside/test_door.py)."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        assert protocol is not None, "it has just been made"
        read, left = protocol.read, MAX_INTERIM

        async def counted() -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise aiohttp.ClientPayloadError("interim answers without end")
            return await read()

        protocol.read = counted  # type: ignore[method-assign]
        try:
            return await super().start(connection)
        finally:
            protocol.read = read  # type: ignore[method-assign]


class _Turns(AbstractResolver):
    """The look-ups of one tenant, of which so many go on at once.

    SECURITY: nobody can break one off, so it holds its place until it has ended, whoever waits for it no more (tests/proxy/outside/test_lookups.py).
    """

    def __init__(self, resolver: AbstractResolver, places: KeyedSemaphore, looking: Tasks, tenant: str) -> None:
        self._resolver = resolver
        self._places = places
        self._looking = looking
        self._tenant = tenant

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        release = await self._places.acquire(self._tenant)
        looking = self._looking.start(self._resolver.resolve(host, port, family), "look-up of a name")
        looking.add_done_callback(lambda ended: release())
        return await asyncio.shield(looking)

    async def close(self) -> None:
        pass


class _Resolver(AbstractResolver):
    """As the machine resolves names, each in a thread of its own, which ends with the process: a gate that stops waits for no name server."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        def look_up() -> list[tuple[Any, ...]]:
            return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)

        infos = await _in_thread(look_up)
        return [
            ResolveResult(
                hostname=host,
                host=_numeric(address),
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        pass


async def _in_thread(work: Callable[[], T]) -> T:
    """Raises what the work does."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(put: Callable[[Any], None], outcome: Any) -> None:
        if not answer.done():
            put(outcome)

    def run() -> None:
        put: Callable[[Any], None] = answer.set_result
        try:
            outcome: Any = work()
        except Exception as error:
            put, outcome = answer.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(tell, put, outcome)

    Thread(target=run, name="name outside", daemon=True).start()
    return await answer


def _numeric(address: tuple[Any, ...]) -> str:
    """With its zone, which an address of a link has (RFC 4007, 11)."""
    zone = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{zone}" if zone and "%" not in address[0] else str(address[0])


def _unwrapped(address: str) -> str:
    return str(plain(ip_address(address)))


def _is_of_this_machine(family: int, address: str) -> bool:
    """Whether something may listen at it here. Who listens at every address of the machine is found at each of them."""
    with socket.socket(family, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.bind((address.partition("%")[0], 0))
        return True
    return False

"""Socket activation: which sockets the gate takes from its service manager, and which it refuses, with what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load_config
from proxy.systemd import PassedSockets, take_sockets
from tests.ports import listening_everywhere


class Manager:
    """Passes descriptors that follow one another, as a service manager does."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self.first = 200

    def passes(self, *sockets: socket.socket, names: str = "", pid: int | None = None) -> dict[str, str]:
        """The environment of the service, which has these sockets from `first` on."""
        for index, each in enumerate(sockets):
            os.dup2(each.fileno(), self.first + index)
        return {
            "LISTEN_PID": str(pid or os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": names,
            "A": "b",
        }

    def at(self, host: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        return self._held.enter_context(socket.create_server((host, 0), family=family))

    def everywhere(self, family: socket.AddressFamily = socket.AF_INET, **options: bool) -> socket.socket:
        return self._held.enter_context(listening_everywhere(family, **options))

    def other(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        return self._held.enter_context(socket.socket(family, kind))

    def ends(self, *taken: PassedSockets) -> None:
        for each in taken:
            for one in (*each.public, *each.ops):
                one.close()
        self._held.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.ends()
    for number in range(made.first, made.first + 8):
        try:
            os.close(number)
        except OSError:
            continue


def configured(folder: Path, *, host: str = "127.0.0.1", port: int = 0, ops_port: int = 0) -> Config:
    file = folder / "config.toml"
    file.write_text(f'[server]\nhost = "{host}"\nport = {port}\n[ops]\nport = {ops_port}\n', encoding="utf-8")
    return load_config(file, {})


def port_of(found: socket.socket) -> int:
    return int(found.getsockname()[1])


def test_takes_what_was_passed_and_leaves_no_word_of_it(manager: Manager, tmp_path: Path) -> None:
    public, ops = manager.at("127.0.0.1"), manager.at("127.0.0.1")
    environ = manager.passes(public, ops, names="comfygate.socket:ops")
    config = configured(tmp_path, port=port_of(public), ops_port=port_of(ops))
    taken = take_sockets(config, environ, manager.first)
    assert [port_of(each) for each in taken.public] == [port_of(public)]
    assert [port_of(each) for each in taken.ops] == [port_of(ops)]
    assert not [each for each in (*taken.public, *taken.ops) if each.get_inheritable()]
    assert environ == {"A": "b"}
    manager.ends(taken)


def test_without_a_name_it_is_the_public_one(manager: Manager, tmp_path: Path) -> None:
    public = manager.at("127.0.0.1")
    taken = take_sockets(configured(tmp_path, port=port_of(public)), manager.passes(public), manager.first)
    assert (len(taken.public), taken.ops) == (1, ())
    manager.ends(taken)


def test_a_host_of_two_addresses_may_have_a_socket_for_each(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [(socket.AF_INET, 0, 0, "", ("127.0.0.1", 0)), (socket.AF_INET6, 0, 0, "", ("::1", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    environ = manager.passes(manager.at("127.0.0.1"), manager.at("::1", socket.AF_INET6))
    taken = take_sockets(configured(tmp_path, host="localhost"), environ, manager.first)
    assert len(taken.public) == 2
    manager.ends(taken)


def test_what_is_anothers_is_not_taken(manager: Manager, tmp_path: Path) -> None:
    environ = manager.passes(manager.at("127.0.0.1"), pid=1)
    assert take_sockets(configured(tmp_path), environ, manager.first) == PassedSockets()
    assert environ == {"A": "b"}
    assert take_sockets(configured(tmp_path), {}) == PassedSockets()


@pytest.mark.parametrize("count", ["x", "-1", "²", "17", "1.0"])
def test_a_count_that_is_none_is_refused(tmp_path: Path, count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    with pytest.raises(ConfigError, match="takes up to 16 sockets"):
        take_sockets(configured(tmp_path), environ)


def refused(manager: Manager, config: Config, *sockets: socket.socket, names: str = "") -> list[str]:
    with pytest.raises(ConfigError) as told:
        take_sockets(config, manager.passes(*sockets, names=names), manager.first)
    return str(told.value).splitlines()


def test_what_does_not_listen_on_tcp_is_refused(manager: Manager, tmp_path: Path) -> None:
    wrong = [
        manager.other(socket.AF_INET, socket.SOCK_STREAM),
        manager.other(socket.AF_INET, socket.SOCK_DGRAM),
        manager.other(socket.AF_UNIX, socket.SOCK_STREAM),
    ]
    lines = refused(manager, configured(tmp_path), *wrong, names="a:b:ops")
    assert [line.partition(": ")[2].partition(", which")[0] for line in lines] == [
        "server.port: the socket 'a'",
        "server.port: the socket 'b'",
        "ops.port: the socket 'ops'",
    ]
    assert all("is no TCP socket that listens. The .socket unit needs ListenStream=" in line for line in lines)


def test_a_connection_is_refused(manager: Manager, tmp_path: Path) -> None:
    """As `Accept=yes` passes it."""
    listening = manager.at("127.0.0.1")
    with socket.create_connection(listening.getsockname()) as connection:
        (line,) = refused(manager, configured(tmp_path), connection, names="connection")
    assert "is no TCP socket that listens" in line


def test_a_descriptor_that_is_not_open_is_refused(manager: Manager, tmp_path: Path) -> None:
    environ = manager.passes() | {"LISTEN_FDS": "1"}
    with pytest.raises(ConfigError, match="'unknown', which the service manager passed, is no TCP socket"):
        take_sockets(configured(tmp_path), environ, manager.first)


def test_one_that_listens_at_another_port_is_refused(manager: Manager, tmp_path: Path) -> None:
    public, other = manager.at("127.0.0.1"), manager.at("127.0.0.1")
    (line,) = refused(manager, configured(tmp_path, port=port_of(other)), public, names="comfygate.socket")
    assert line.endswith(
        f"server.port: the socket 'comfygate.socket', which the service manager passed, listens on 127.0.0.1, port {port_of(public)}, but "
        f"server.host and server.port say 127.0.0.1, port {port_of(other)}: let them and ListenStream= of the .socket unit say the same"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2"])
def test_one_that_listens_elsewhere_is_refused(manager: Manager, tmp_path: Path, host: str) -> None:
    public = manager.everywhere() if host == "0.0.0.0" else manager.at(host)
    (line,) = refused(manager, configured(tmp_path, port=port_of(public)), public)
    assert f"listens on {host}, port" in line


def test_one_of_both_protocols_is_refused_where_one_is_configured(manager: Manager, tmp_path: Path) -> None:
    """`ListenStream=8190` listens on `::`, and there on every address of IPv4 too."""
    public = manager.everywhere(socket.AF_INET6, dualstack=True)
    (line,) = refused(manager, configured(tmp_path, host="::"), public)
    assert "listens on 0.0.0.0 and ::, port" in line
    alone = manager.everywhere(socket.AF_INET6)
    for host, found in (("::", alone), ("", public)):
        taken = take_sockets(configured(tmp_path, host=host), manager.passes(found), manager.first)
        assert len(taken.public) == 1
        taken.public[0].close()


def test_a_host_that_cannot_be_looked_up_is_refused(manager: Manager, tmp_path: Path) -> None:
    (line,) = refused(manager, configured(tmp_path, host="no.such.host.invalid"), manager.at("127.0.0.1"))
    assert "cannot be compared with no.such.host.invalid: " in line


def test_children_are_passed_nothing(manager: Manager, tmp_path: Path) -> None:
    taken = take_sockets(configured(tmp_path), manager.passes(manager.at("127.0.0.1")), manager.first)
    code = "import os, sys\ntry:\n os.fstat(int(sys.argv[1]))\nexcept OSError:\n print('closed')"
    number = str(taken.public[0].fileno())
    said = subprocess.run([sys.executable, "-c", code, number], close_fds=False, capture_output=True, check=True)
    assert said.stdout.strip() == b"closed"
    manager.ends(taken)

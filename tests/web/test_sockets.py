"""What the system tells of this process's sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from streamy_redis.servers import sockets
from streamy_redis.servers.sockets import ListeningPort


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with contextlib.closing(socket.create_server((request.param, 0), family=family)) as server:
        yield server


def _port(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def test_a_port_is_closed_with_its_socket(listening: socket.socket):
    port = ListeningPort(_port(listening))
    assert port
    assert not port.has_closed()

    listening.close()

    assert port.has_closed()


def test_a_port_that_stays_open_in_a_copy_is_not_closed(listening: socket.socket):
    """As with a socket that a service manager passed on."""
    port = ListeningPort(_port(listening))
    copy = listening.dup()

    listening.close()

    assert not port.has_closed()
    copy.close()
    assert port.has_closed()


def test_a_port_that_is_opened_anew_at_once_is_not_closed(listening: socket.socket):
    """As by a server that starts its successor in the same process."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    name = listening.getsockname()
    with contextlib.closing(socket.socket(listening.family)) as successor:
        port = ListeningPort(name[1])
        listening.close()
        successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        successor.bind(name)
        successor.listen()

        assert not port.has_closed()
        successor.close()
        assert port.has_closed()


def test_nothing_is_known_of_another_process_s_socket():
    listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])"
    command = [sys.executable, "-uc", f"{listen}; input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = ListeningPort(int(other.stdout.readline()))

        assert not port
        assert not port.has_closed()

        other.communicate()
    assert not port.has_closed()


def test_nothing_is_known_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "_DESCRIPTORS", os.devnull)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = ListeningPort(_port(server))

    assert not port
    assert not port.has_closed()


def test_only_the_one_client_s_connection_is_cut(listening: socket.socket):
    here = ("::1" if listening.family is socket.AF_INET6 else "127.0.0.1", _port(listening))
    clients = [socket.create_connection(here, 5) for _ in range(3)]
    accepted = [listening.accept()[0] for _ in clients]

    # As granian has it: a name, and the port as text.
    host, port = clients[1].getsockname()[:2]
    assert sockets.cut((here[0], str(here[1])), (host, str(port)), abruptly=True)

    with pytest.raises(ConnectionError):
        accepted[1].sendall(b"x")
    for n in (0, 2):
        accepted[n].sendall(b"x")
        assert clients[n].recv(1) == b"x"
    for each in (*clients, *accepted):
        each.close()


@pytest.mark.parametrize("client", [None, (), ("testclient", 50000), ("127.0.0.1", None), "/unix"])
def test_nothing_is_cut_for_what_is_no_address(client: object):
    assert not sockets.cut(("127.0.0.1", 80), client, abruptly=True)  # type: ignore[arg-type]


def test_a_client_of_ipv4_is_found_on_a_socket_of_ipv6():
    family = socket.AF_INET6
    with (
        contextlib.closing(
            socket.create_server(("::", 0), family=family, dualstack_ipv6=True)
        ) as server,
        socket.create_connection(("127.0.0.1", _port(server)), 5) as client,
    ):
        accepted, peer = server.accept()
        assert peer[0] == "::ffff:127.0.0.1"

        assert sockets.cut(("127.0.0.1", _port(server)), client.getsockname(), abruptly=True)

        with pytest.raises(ConnectionError):
            accepted.sendall(b"x")
        accepted.close()

"""The sockets of this process: those that listen, and the one between a client and us.

For servers that show neither themselves nor a connection. Linux tells of them in /proc, without
anything being done to a socket that isn't ours; where there is no /proc, nothing is found.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = [
    "ListeningPort",
    "between",
    "cut",
    "duplicate",
    "port_of",
    "same_address",
    "shut_down",
    "swap_user_timeout",
]

_DESCRIPTORS = "/proc/self/fd"
# What follows state (10 is LISTEN) up to the inode: proc_pid_net(5).
_REST = rb" \S+ \S+ \S+ +\d+ +\d+ (\d+) "
# Seconds for which one look at all connections is good enough: a stopping server cuts all of them,
# and each look costs as much as there are.
_GLANCE = 0.1
# Off with what is unsent.
_ABRUPTLY = struct.pack("ii", 1, 0)
# An address of no family (AF_UNSPEC), as large as one of IPv4.
_NOBODY = bytes(16)

Address = Sequence[Any]


class ListeningPort:
    """A port, and by which sockets this process listens to it.

    What another process listens to is that one's: a server that is replaced on its port is seen
    to stop all the same. Copies that a process has of one socket count until the last is closed.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets = _listening(port)

    def __bool__(self) -> bool:
        """Whether any was seen."""
        return bool(self._sockets)

    def has_closed(self) -> bool:
        """Whether all that was seen is closed, and nothing has come in its place."""
        if not self._sockets or any(_link(fd) == link for fd, link in self._sockets.items()):
            return False
        reopened = _listening(self._port)
        self._sockets = reopened or self._sockets
        return not reopened


def cut(server: Address | None, client: Address | None, *, abruptly: bool) -> bool:
    """Breaks off the connection that this process has with a client; False if it isn't found.

    Args:
        server, client: host and port of either end; the server's host doesn't matter.
        abruptly: it is reset, and what the kernel hasn't sent is dropped.
    """
    is_found = False
    for connection in between(server, client):
        is_found = True
        with contextlib.suppress(OSError):
            shut_down(connection, abruptly=abruptly)
    return is_found


def between(
    server: Address | None, client: Address | None, *, came_just_now: bool = False
) -> Iterator[socket.socket]:
    """Duplicates of what this process has of its connection with a client, each for one turn.

    Args:
        server, client: host and port of either end; the server's host doesn't matter.
        came_just_now: an earlier look is not good enough.
    """
    port = port_of(server)
    if not (port and client and port_of(client)):
        return
    for fd in _descriptors_between(port, client, came_just_now=came_just_now):
        # A duplicate can't become another's meanwhile.
        with contextlib.suppress(OSError), duplicate(fd) as connection:
            if same_address(connection.getpeername(), client):
                yield connection


@contextlib.contextmanager
def duplicate(fd: int) -> Iterator[socket.socket]:
    """A socket of our own for the same connection, closed behind the block.

    Raises:
        OSError: it is no socket (any more), or the process has no descriptor left.
    """
    copied = os.dup(fd)
    try:
        connection = socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        raise
    with connection:
        yield connection


def shut_down(connection: socket.socket, *, abruptly: bool) -> None:
    """Ends a connection, whoever waits for it; its owner closes it.

    Args:
        abruptly: it is reset, and what the kernel hasn't sent is dropped.

    Raises:
        OSError: it is gone already.
    """
    if abruptly:
        # For when the last that holds it closes it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPTLY)
        if _reset(connection):
            return
    connection.shutdown(socket.SHUT_RDWR)


def swap_user_timeout(connection: socket.socket, was: int, to: int) -> None:
    """Says for how many milliseconds a client may let TCP wait for it: tcp(7), TCP_USER_TIMEOUT.

    Args:
        was: what was said before; whatever else a server may have said stays. 0 is the kernel's
            own: a quarter of an hour.
        to: what is said from now on.

    Raises:
        OSError: it is gone already.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
    if option is None or not is_tcp:
        return
    if connection.getsockopt(socket.IPPROTO_TCP, option) == was:
        connection.setsockopt(socket.IPPROTO_TCP, option, to)


def _reset(connection: socket.socket) -> bool:
    """Tells a client at once that it is lost, whoever else holds it; shutdown() says that it ended.

    connect(2): "TCP sockets … may dissolve the association by connecting to … AF_UNSPEC". Python
    has no name for such an address. False where the system doesn't, or for a unix socket.
    """
    connect = _connect()
    return connect is not None and connect(connection.fileno(), _NOBODY, len(_NOBODY)) == 0


@functools.cache
def _connect() -> Callable[[int, bytes, int], int] | None:
    """connect(2) itself; None on Windows, and for a Python that was built without libffi."""
    try:
        import ctypes

        return ctypes.CDLL(None).connect
    except (ImportError, TypeError):
        return None


def port_of(address: Address | None) -> int | None:
    """The port in an address, which granian has as text; None for a unix socket's."""
    try:
        return int(address[1])  # type: ignore[index]
    except (TypeError, ValueError, IndexError):
        return None


def same_address(one: Address | None, other: Address | None) -> bool:
    """Whether both are host and port of the same end of a connection."""
    if one is None or other is None or port_of(one) is None:
        return False
    # A socket of IPv6 has other names for addresses of IPv4.
    hosts = {str(each[0]).removeprefix("::ffff:") for each in (one, other)}
    return len(hosts) == 1 and port_of(one) == port_of(other)


def _listening(port: int) -> dict[int, str]:
    """The descriptors of what listens to the port, and what each links to."""
    pattern = re.compile(rb": [0-9A-F]+:%04X [0-9A-F]+:0000 0A" % port + _REST)
    links = set()
    for family in ("tcp", "tcp6"):
        for line in _table(family):
            found = pattern.search(line)
            if found:
                links.add(f"socket:[{int(found[1])}]")
            elif b" 0A " not in line and b": " in line:
                # What listens comes first, and there may be many connections.
                break
    return _descriptors_of(links)


def _descriptors_between(port: int, client: Address, *, came_just_now: bool) -> list[int]:
    try:
        host = ipaddress.ip_address(str(client[0]).removeprefix("::ffff:"))
    except ValueError:
        return []
    names = [host.packed]
    if host.version == 4:
        names.append(ipaddress.ip_address(f"::ffff:{host}").packed)
    now = time.monotonic()
    found = _connections_to(port, now if came_just_now else now // _GLANCE)
    return [fd for name in names for fd in found.get((_in_hexadecimal(name), int(client[1])), ())]


@functools.lru_cache(maxsize=1)
def _connections_to(port: int, _glance: float) -> dict[tuple[bytes, int], list[int]]:
    """The descriptors of connections to a port of ours, by their clients, as of one glance.

    Who comes later is not in it; who has gone meanwhile has another peer by then.
    """
    pattern = re.compile(rb": [0-9A-F]+:%04X ([0-9A-F]+):([0-9A-F]{4}) [0-9A-F]{2}" % port + _REST)
    lines = (line for family in ("tcp", "tcp6") for line in _table(family))
    clients = {
        f"socket:[{int(found[3])}]": (found[1], int(found[2], 16))
        for found in map(pattern.search, lines)
        if found
    }
    by_client: dict[tuple[bytes, int], list[int]] = {}
    for fd, link in _descriptors_of(set(clients)).items():
        by_client.setdefault(clients[link], []).append(fd)
    return by_client


def _in_hexadecimal(packed: bytes) -> bytes:
    """An address as the kernel writes it: words of 32 bits, each in the machine's order."""
    words = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    return b"".join(b"%08X" % int.from_bytes(word, sys.byteorder) for word in words)


def _table(family: str) -> Iterator[bytes]:
    with contextlib.suppress(OSError), open(f"/proc/self/net/{family}", "rb") as lines:
        yield from lines


def _descriptors_of(links: set[str]) -> dict[int, str]:
    if not links:
        return {}
    try:
        descriptors = [int(name) for name in os.listdir(_DESCRIPTORS)]
    except OSError:
        return {}
    linked = ((fd, _link(fd)) for fd in descriptors)
    return {fd: link for fd, link in linked if link in links}


def _link(fd: int) -> str | None:
    try:
        return os.readlink(f"{_DESCRIPTORS}/{fd}")
    except OSError:
        return None

"""The sockets of this process: those that listen, and the one between a client and us.

For servers that show neither themselves nor a connection. Linux tells of them in /proc, without
anything being done to a socket that isn't ours; where there is no /proc, nothing is found.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["ListeningPort", "cut", "port_of", "same_address"]

_DESCRIPTORS = "/proc/self/fd"
# What follows state (10 is LISTEN) up to the inode: proc_pid_net(5).
_REST = rb" \S+ \S+ \S+ +\d+ +\d+ (\d+) "
# Off with what is unsent.
_ABRUPTLY = struct.pack("ii", 1, 0)

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


def cut(server: Address | None, client: Address | None) -> None:
    """Breaks off the connection that this process has with a client, if it is found.

    Args:
        server, client: host and port of either end; the server's host doesn't matter.
    """
    port = port_of(server)
    links = _links_between(port, client) if port and client and port_of(client) else set()
    for fd in _descriptors_of(links):
        # A duplicate can't become another's meanwhile.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
            if same_address(connection.getpeername(), client):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPTLY)
                connection.shutdown(socket.SHUT_RDWR)


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


def _links_between(port: int, client: Address) -> set[str]:
    try:
        host = ipaddress.ip_address(str(client[0]).removeprefix("::ffff:"))
    except ValueError:
        return set()
    packed = [(f"tcp{'6' if host.version == 6 else ''}", host.packed)]
    if host.version == 4:
        packed.append(("tcp6", ipaddress.ip_address(f"::ffff:{host}").packed))
    links = set()
    for family, name in packed:
        ends = (port, _in_hexadecimal(name), int(client[1]))
        pattern = re.compile(rb": [0-9A-F]+:%04X %b:%04X [0-9A-F]{2}" % ends + _REST)
        inodes = (int(found[1]) for found in map(pattern.search, _table(family)) if found)
        links |= {f"socket:[{inode}]" for inode in inodes}
    return links


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

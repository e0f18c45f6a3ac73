"""Chunks: a body of HTTP/1.1 whose length nobody knows (RFC 9112, section 7.1).

Only the last chunk says that the body is complete. A response that is cut never has it.
"""

from __future__ import annotations

__all__ = ["LAST_CHUNK", "chunk"]

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """The data as one chunk. It may not be empty: that would be the last one."""
    assert data
    return b"%x\r\n%b\r\n" % (len(data), data)

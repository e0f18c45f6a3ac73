"""RESP2 off a socket: what hiredis reads, and what is read without it."""

from __future__ import annotations

from collections.abc import Iterable

import hiredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from streamy_redis.replies import PythonReplies, Replies, new_replies, replies_in


def read(replies: Replies, pieces: Iterable[bytes]) -> list[object]:
    """All that comes of them."""
    return [plain(reply) for piece in pieces for reply in replies_in(piece, replies)]


def plain(reply: object) -> object:
    """With errors as what they say, since no two errors are equal."""
    if isinstance(reply, list):
        return [plain(each) for each in reply]
    return f"error: {reply}" if isinstance(reply, redis.ResponseError) else reply


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(items: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


words = st.text("abc ", max_size=9).map(str.encode)
scalars = st.one_of(
    st.binary(max_size=40).map(bulk),
    st.just(b"$-1\r\n"),
    st.just(b"*-1\r\n"),
    st.integers(-(2**63), 2**63 - 1).map(b":%d\r\n".__mod__),
    words.map(b"+%b\r\n".__mod__),
    words.map(b"-ERR %b\r\n".__mod__),
)
replies = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(array), max_leaves=9)


@given(st.lists(replies, max_size=6).map(b"".join), st.data())
def test_whatever_the_pieces_it_reads_what_hiredis_reads(whole: bytes, data: st.DataObject):
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    pieces = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert isinstance(new_replies(), hiredis.Reader)
    expected = read(new_replies(), [whole])

    assert read(PythonReplies(), pieces) == expected
    assert read(new_replies(), pieces) == expected


@pytest.mark.parametrize("make", [new_replies, PythonReplies])
@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n", b"*x\r\n", b":x\r\n"])
def test_what_is_no_resp2_is_an_error(make: type[Replies], junk: bytes):
    replies = make()
    replies.feed(junk)

    with pytest.raises(redis.InvalidResponse):
        replies.gets()

"""Which stream ids are taken, and that each is isolated from every other."""

from __future__ import annotations

import itertools
import unicodedata
from typing import Any

import pytest

from streamy_redis import InvalidEvent

from .conftest import Shell

NASTY = [
    "a",
    "A",
    " a",
    "a ",
    "a b",
    "*",
    "?",
    "[a]",
    "a*",
    "\\a",
    "a:log",
    "a:",
    ":a",
    "{a}",
    "{a",
    "a}",
    "}{",
    "{}",
    "%7Ba%7D",
    "%7ba%7d",
    "%",
    "%25",
    "a%",
    "a/b",
    "../a",
    "a?b=c&d#e",
    "é",
    unicodedata.normalize("NFD", "é"),
    "😀",
    "\u2028",
    "'\";",
    "$",
    "0",
    "None",
    "x" * 512,
    "é" * 256,
]


@pytest.mark.parametrize(
    "stream_id",
    ["", "x" * 513, "é" * 257, "a\nb", "a\0", "\x7f", "\x9f", "\t", "\ud800", None, 7, b"a", ["a"]],
    ids=lambda value: repr(value)[:12],
)
@pytest.mark.refusal
def test_refuses_a_bad_stream_id_before_redis_is_asked(shell: Shell, stream_id: Any):
    nowhere = shell.manager("redis://127.0.0.1:1/0")
    calls = [
        lambda: nowhere.send_event(stream_id, "x"),
        lambda: nowhere.send_events(stream_id, ["x"]),
        lambda: nowhere.end_stream(stream_id),
        lambda: nowhere.delete_stream(stream_id),
        lambda: nowhere.info(stream_id),
        lambda: nowhere.subscribe(stream_id),
    ]

    for call in calls:
        with pytest.raises(InvalidEvent, match="stream_id"):
            call()


def test_every_id_is_isolated_from_every_other(shell: Shell, streams: Any):
    readers = {stream_id: shell.reader(streams, stream_id) for stream_id in NASTY}

    sent = {stream_id: streams.send_event(stream_id, f"for {stream_id}") for stream_id in NASTY}

    for stream_id, reader in readers.items():
        received = reader.wait_for(1)
        assert [(e.stream_id, e.id, e.data) for e in received] == [
            (stream_id, sent[stream_id], f"for {stream_id}")
        ]
        assert streams.info(stream_id).length == 1


def test_ending_and_deleting_leaves_every_other_alone(streams: Any):
    for stream_id in NASTY:
        streams.send_event(stream_id, "x")

    for ended, deleted in (
        itertools.batched(NASTY, 2)
        if hasattr(itertools, "batched")
        else zip(NASTY[::2], NASTY[1::2], strict=True)
    ):
        streams.end_stream(ended)
        streams.delete_stream(deleted)

    assert [streams.info(i).ended for i in NASTY] == [True, False] * (len(NASTY) // 2)
    assert [streams.info(i).exists for i in NASTY] == [True, False] * (len(NASTY) // 2)


def test_prefixes_isolate_managers_on_one_server(shell: Shell, streams: Any):
    other = shell.manager(prefix=shell.prefix + "-other")
    reader = shell.reader(other, "room", replay="all")

    streams.send_event("room", "not for you")
    other.send_event("room", "for you")

    assert reader.wait_for(1)[0].data == "for you"
    assert reader.gets_no_more()


@pytest.mark.real_server
def test_the_whole_id_is_the_cluster_hash_tag(shell: Shell, streams: Any, store: Any):
    for stream_id in NASTY:
        streams.send_event(stream_id, "x")

    keys = {key.decode() for key in store.scan_iter(f"{shell.prefix}*")}

    assert keys == {shell.log(stream_id) for stream_id in NASTY}
    for key in keys:
        tag = key[key.index("{") + 1 : key.index("}")]
        assert key == f"{shell.prefix}:{{{tag}}}:log"

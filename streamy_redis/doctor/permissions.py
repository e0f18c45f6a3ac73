"""Permissions: which commands, keys and channels Redis refuses this user.

Everything that the package uses is tried on a stream that doesn't exist, so nothing is written:
whoever asks ACL GETUSER or ACL DRYRUN instead needs more rights than the package does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis

from ..keys import Keys
from .finding import Finding, ok, problem

__all__ = ["Missing", "examine_permissions", "grant", "missing_permission"]

# How NOPERM reads: "…to run the 'xadd' command", "…to access one of the keys used as arguments"
# (6.2), "No permissions to access a key", "…to access the 'name' channel" (7.0 and newer).
_COMMAND = re.compile(r"\bto run the '([^']+)'")
_KEY = re.compile(r"\baccess .*\bkeys?\b")
_CHANNEL = re.compile(r"\baccess .*\bchannels?\b")
_UNKNOWN = re.compile(r"unknown (command|subcommand)|ERR unknown")
# No script has this one, so it is never run.
_NO_SHA = "0" * 40

_KEYS_PURPOSE = "the histories"
_CHANNELS_PURPOSE = "the live feed"


class Missing(NamedTuple):
    """What Redis refuses.

    Attributes:
        rule: the ACL rule that allows it; "" where the command isn't there at all.
        text: what this user may not do, and what it is needed for.
    """

    rule: str
    text: str


class _Probe(NamedTuple):
    """A command that shows by its reply whether it is allowed, and changes nothing."""

    rule: str
    purpose: str
    command: tuple[str | int, ...]


def examine_permissions(
    connection: redis.Connection, listening: redis.Connection, prefix: str, user: str
) -> Iterator[Finding]:
    """What is missing, one finding each; or that nothing is.

    Args:
        listening: a second connection, for SUBSCRIBE.
        user: as which the connections are logged in.
    """
    keys = Keys(prefix)
    # Under a name that no other doctor uses, and nobody's stream.
    stream_id = "streamy-redis doctor"
    found: dict[str, Missing] = {}
    tried = 0
    for line, probes in (
        (connection, _probes(keys.log(stream_id), keys.channel(stream_id))),
        (listening, _listening_probes(keys.channel(stream_id))),
    ):
        for probe in probes:
            tried += 1
            missing = _try(line, probe, prefix)
            if missing is not None:
                found.setdefault(missing.rule or missing.text, missing)
    for missing in found.values():
        yield problem("permissions", missing.text, grant(user, missing.rule))
    if not found:
        yield ok("permissions", f"{user!r} may do all that is needed ({tried} commands tried)")


def missing_permission(error: Exception, prefix: str) -> Missing | None:
    """What a refusal is about; None if the error is no refusal of a right."""
    said = str(error)
    if named := _COMMAND.search(said):
        command = named[1]
        return Missing(f"+{command}", f"may not run {command.upper().replace('|', ' ')}")
    if not isinstance(error, redis.exceptions.NoPermissionError) and "NOPERM" not in said:
        return None
    pattern = f"{_escaped(prefix)}:*"
    if _CHANNEL.search(said):
        return Missing(f"&{pattern}", f"may not use the channels {prefix}:* ({_CHANNELS_PURPOSE})")
    if _KEY.search(said):
        return Missing(f"~{pattern}", f"may not use the keys {prefix}:* ({_KEYS_PURPOSE})")
    return Missing("", f"is refused: {said}")


def grant(user: str, rule: str) -> str:
    """What an administrator does to allow it."""
    if not rule:
        return "Ask whoever runs this Redis: the command was renamed, disabled or restricted."
    return f"ACL SETUSER {user} {rule}"


def _probes(log: str, channel: str) -> list[_Probe]:
    read, send = "sending and reading", "sending and ending"
    keyed = "sending with an idempotency key"
    return [
        _Probe("+ping", "the listener notices a dead connection", ("PING",)),
        _Probe("+eval", "the scripts, when the server doesn't know one yet", _eval(log)),
        _Probe("+evalsha", "the scripts", ("EVALSHA", _NO_SHA, 1, log)),
        _Probe("+exists", read, ("EXISTS", log)),
        _Probe("+xinfo|stream", read, ("XINFO", "STREAM", log)),
        _Probe("+xrevrange", read, ("XREVRANGE", log, "+", "-", "COUNT", 1)),
        _Probe("+xrange", "replay and resume", ("XRANGE", log, "-", "+", "COUNT", 1)),
        _Probe("+pttl", "replay, resume and info", ("PTTL", log)),
        _Probe("+time", read, ("TIME",)),
        # NOMKSTREAM: there is no such key, so there will be none.
        _Probe("+xadd", send, ("XADD", log, "NOMKSTREAM", "*", "frame", "")),
        _Probe("+xdel", "giving up what a failover cut short", ("XDEL", log, "1-1")),
        _Probe("+pexpire", send, ("PEXPIRE", log, 1000)),
        _Probe("+xpending", keyed, ("XPENDING", log, "doctor", "-", "+", 1)),
        _Probe("+xclaim", keyed, ("XCLAIM", log, "doctor", "doctor", 0, "1-1")),
        # No MKSTREAM, so there will be none here either.
        _Probe("+xgroup|create", keyed, ("XGROUP", "CREATE", log, "doctor", "0")),
        _Probe("+xgroup|delconsumer", keyed, ("XGROUP", "DELCONSUMER", log, "doctor", "doctor")),
        _Probe("+unlink", "delete_stream", ("UNLINK", log)),
        _Probe("+publish", send, ("PUBLISH", channel, "")),
        # The last, since a transaction that was begun takes all that follows.
        _Probe("+multi", "replay and resume", ("MULTI",)),
        _Probe("+exec", "replay and resume", ("EXEC",)),
    ]


def _listening_probes(channel: str) -> list[_Probe]:
    return [
        _Probe("+subscribe", "the listener", ("SUBSCRIBE", channel)),
        _Probe("+unsubscribe", "the listener", ("UNSUBSCRIBE", channel)),
    ]


def _eval(log: str) -> tuple[str | int, ...]:
    return ("EVAL", "return 1", 1, log)


def _try(connection: redis.Connection, probe: _Probe, prefix: str) -> Missing | None:
    try:
        ask(connection, *probe.command)
    except redis.exceptions.ConnectionError:
        raise
    except redis.ResponseError as exc:
        if _UNKNOWN.search(str(exc)):
            name = str(probe.command[0])
            return Missing("", f"finds no command {name}, which is for {probe.purpose}")
        missing = missing_permission(exc, prefix)
        if missing is None or missing.rule[:1] != "+":
            # Any other error comes from the command itself: it was allowed to run.
            return missing
        return Missing(probe.rule, f"{missing.text} ({probe.purpose})")
    return None


def ask(connection: redis.Connection, *command: str | int) -> Any:
    """The reply as Redis gives it. Raises redis.RedisError."""
    connection.send_command(*command)
    return connection.read_response()


def _escaped(prefix: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", prefix)

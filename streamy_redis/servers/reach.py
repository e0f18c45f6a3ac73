"""Reaching through what middlewares put around a callable, to what the server made.

Functions keep what they call in their closures, methods in their owner, other callables in their
attributes: all of that is looked at, nearest first, in a bounded number of steps.
"""

from __future__ import annotations

import asyncio
import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["is_made_by", "objects_behind"]

# Starlette's BaseHTTPMiddleware takes 10 of them: many middlewares fit, and one whose owner holds
# half an application costs some 100 µs.
_MOST = 250
# What leads to no server, or to all there is.
_LEAVES = (
    *(str, bytes, bytearray, int, float, type, types.ModuleType, types.CodeType),
    *(asyncio.AbstractEventLoop, asyncio.Future),
)
# A container is looked into where it holds a few things, as arguments do.
_MOST_ITEMS = 8


def is_made_by(package: str, each: object) -> bool:
    """Whether its class, or one that it inherits from, is of this package."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(each).__mro__)


def objects_behind(called: object) -> Iterator[object]:
    """What can be reached from a callable without calling anything, itself first."""
    # Kept, so that no other object gets an id meanwhile.
    found = {id(called): called}
    waiting = deque([called])
    while waiting:
        each = waiting.popleft()
        yield each
        for behind in _held_by(each):
            if len(found) == _MOST:
                break
            # Not isinstance(), which asks a proxy for the class of what it stands for.
            if id(behind) not in found and not issubclass(type(behind), _LEAVES):
                found[id(behind)] = behind
                waiting.append(behind)


def _held_by(each: Any) -> Iterable[object]:
    kind = type(each)
    if kind is types.FunctionType:
        return _held_by_function(each)
    if kind is types.MethodType or kind is types.BuiltinMethodType:
        return (each.__self__, getattr(each, "__func__", None))
    if kind is functools.partial:
        return (each.func, *each.args, *each.keywords.values())
    if issubclass(kind, list | tuple | set | frozenset):
        return each if len(each) <= _MOST_ITEMS else ()
    if issubclass(kind, dict):
        return each.values() if len(each) <= _MOST_ITEMS else ()
    return _attributes(each)


def _held_by_function(function: Any) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            # Not assigned yet.
            continue
    yield from function.__defaults__ or ()
    yield from function.__dict__.values()


def _attributes(each: object) -> Iterator[object]:
    try:
        yield from object.__getattribute__(each, "__dict__").values()
    except Exception:
        # It has none, or is a proxy of what isn't there.
        pass
    for kind in type(each).__mro__:
        for member in kind.__dict__.values():
            # What __slots__ makes; a property could do anything.
            if type(member) is types.MemberDescriptorType:
                try:
                    yield member.__get__(each)
                except AttributeError:
                    continue

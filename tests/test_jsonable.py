"""JSON text of what an application has at hand: the same that FastAPI answers with."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import re
import subprocess
import sys
import uuid
from collections import OrderedDict, deque
from typing import Any, NamedTuple

import pydantic
import pytest
from fastapi.encoders import jsonable_encoder

from streamy_redis.jsonable import to_json

NOON = datetime.datetime(2026, 11, 28, 12, 0, 0, 250, tzinfo=datetime.UTC)


class Color(enum.Enum):
    RED = "red"
    DUE = NOON


class Size(enum.StrEnum):
    BIG = "big"


class Level(enum.IntEnum):
    HIGH = 3


class Pair(NamedTuple):
    left: int
    right: Any


@dataclasses.dataclass
class Point:
    x: int
    when: Any = NOON


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    ends: tuple[Point, ...]
    color: Color = Color.RED


class Item(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    name: str
    price: decimal.Decimal = decimal.Decimal("1.50")
    made: datetime.datetime = NOON
    tags: set[str] = {"a"}
    parent: Item | None = None
    kind: str = pydantic.Field("k", alias="itemKind")


class Items(pydantic.RootModel[list[Item]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    id: uuid.UUID


VALUES = [
    {"a": [1, 2.5, True, None, "é\u2028"]},
    NOON,
    NOON.replace(tzinfo=None),
    NOON.date(),
    NOON.time(),
    datetime.timedelta(minutes=1, milliseconds=5),
    uuid.UUID(int=1),
    decimal.Decimal("1.50"),
    decimal.Decimal("2"),
    decimal.Decimal("1E+3"),
    Color.RED,
    Size.BIG,
    Level.HIGH,
    {3},
    frozenset({"x"}),
    deque([1, NOON]),
    (1, uuid.UUID(int=2)),
    Pair(1, NOON),
    pathlib.Path("/a/b"),
    pathlib.PureWindowsPath("c:\\x"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_network("fd00::/8"),
    re.compile("a+"),
    {"bytes": b"text"},
    Point(1),
    Line((Point(1), Point(2, {1}))),
    [Point(1, Item(name="n"))],
    Item(name="n", parent=Item(name="m")),
    Items([Item(name="n")]),
    Checked(uuid.UUID(int=3)),
    {"item": Item(name="n"), "at": [NOON]},
    OrderedDict(b=1, a=NOON),
    {uuid.UUID(int=1): 1, NOON.date(): 2, Size.BIG: 3, 4: 5, None: 6, True: 7},
    {Color.RED: {NOON: {decimal.Decimal("1.5"): 1}}},
    {"list": [{"deep": [{"er": {NOON.date()}}]}]},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_is_what_fastapi_makes_of_it_and_compact(value: Any):
    same = json.dumps(jsonable_encoder(value), ensure_ascii=False, separators=(",", ":"))

    assert to_json(value) == same


def test_a_generator_is_a_list():
    assert to_json({"squares": (n * n for n in range(3))}) == '{"squares":[0,1,4]}'


def test_what_holds_an_enum_s_value_is_taken_as_well():
    # FastAPI leaves what an Enum holds as it is, and then can't write it.
    assert to_json({"due": Color.DUE}) == to_json({"due": NOON})


class Plain:
    def __init__(self) -> None:
        self.password = "not for every browser"


CYCLE: list[Any] = []
CYCLE.append({"again": CYCLE})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Plain(),
        Plain,
        Point,
        len,
        1j,
        float("nan"),
        {"a": [float("inf")]},
        {float("-inf"): 1},
        decimal.Decimal("NaN"),
        decimal.Decimal("sNaN"),
        Point(1, float("nan")),
        {"at": NOON, "x": float("nan")},
        {"bytes": b"\xff"},
        {(1, 2): 3},
        {Point(1).x: Plain()},
        CYCLE,
        [CYCLE, NOON],
    ],
    ids=lambda value: re.sub(" at 0x.*", "", repr(value))[:40],
)
def test_what_json_cannot_carry_is_refused(value: Any):
    with pytest.raises((TypeError, ValueError, RecursionError)):
        to_json(value)


def test_pydantic_stays_out_until_a_model_comes():
    code = (
        "import sys, datetime, streamy_redis.jsonable as j;"
        "j.to_json({'at': datetime.date(2026, 1, 1)});"
        "assert not {'pydantic', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""What `from streamy_redis import …` offers."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import streamy_redis
from streamy_redis import (
    AsyncStreamManager,
    AsyncSubscription,
    StreamConfig,
    StreamManager,
    Subscription,
)


def test_a_prompt_completes_to_public_names_only():
    assert dir(streamy_redis) == sorted(streamy_redis.__all__)


def test_the_configuration_completes_to_its_fields_and_from_env():
    public = {name for name in dir(StreamConfig) if not name.startswith("_")}
    fields = {field.name for field in dataclasses.fields(StreamConfig)}
    assert public == fields | {"from_env"}


@pytest.mark.parametrize("name", streamy_redis.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str):
    assert inspect.getdoc(getattr(streamy_redis, name))


def test_what_subscribe_returns_has_a_name():
    with StreamManager("memory://") as streams:
        assert type(streams.subscribe("room")) is Subscription
    assert type(AsyncStreamManager("memory://").subscribe("room")) is AsyncSubscription

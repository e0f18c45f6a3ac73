"""The examples of docs/security.md let in whom they should, and nobody else."""

from __future__ import annotations

import base64
import importlib.util
import json
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import itsdangerous
import pytest

from streamy_redis import StreamManager
from tests.event_stream import events_of
from tests.readme.document import EXAMPLES
from tests.servers import RedisServer

with warnings.catch_warnings():
    # Newer ones would rather have httpx2 than httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

KEY = "not the key of any real application"


class Site(Protocol):
    """One client of one example."""

    module: Any

    def log_in(self, user: str) -> None: ...
    def get(self, address: str) -> tuple[int, bytes]: ...


class FlaskSite:
    def __init__(self, module: Any) -> None:
        self.module = module
        self._client = module.app.test_client()

    def log_in(self, user: str) -> None:
        with self._client.session_transaction() as session:
            session["user"] = user

    def get(self, address: str) -> tuple[int, bytes]:
        answer = self._client.get(address)
        return answer.status_code, answer.data


class StarletteSite:
    def __init__(self, module: Any, client: TestClient) -> None:
        self.module = module
        self._client = client

    def log_in(self, user: str) -> None:
        content = base64.b64encode(json.dumps({"user": user}).encode())
        self._client.cookies["session"] = itsdangerous.TimestampSigner(KEY).sign(content).decode()

    def get(self, address: str) -> tuple[int, bytes]:
        answer = self._client.get(address)
        return answer.status_code, answer.content


@pytest.fixture
def site(
    request: pytest.FixtureRequest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """The example of this name, whose streams have all ended."""
    monkeypatch.setenv("STREAMY_REDIS_URL", redis_server.url)
    monkeypatch.setenv("SECRET_KEY", KEY)
    with StreamManager(redis_server.url) as streams:
        for stream_id in ("team-7", "team-8", "inbox:ada", "inbox:mallory"):
            streams.end_stream(stream_id, f"the end of {stream_id}")
    spec = importlib.util.spec_from_file_location(request.param, EXAMPLES / f"{request.param}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if request.param.startswith("flask"):
        with module.streams:
            yield FlaskSite(module)
    else:
        with TestClient(module.app) as client:
            yield StarletteSite(module, client)


def end_of(answer: tuple[int, bytes]) -> str:
    status, body = answer
    assert status == 200
    return events_of(body)[-1].data


LOGIN = pytest.mark.parametrize("site", ["flask_login", "starlette_login"], indirect=True)
TOKEN = pytest.mark.parametrize("site", ["flask_token", "starlette_token"], indirect=True)


@LOGIN
def test_a_member_reads_what_is_theirs_only(site: Site):
    site.log_in("ada")

    assert end_of(site.get("/events/team-7")) == "the end of team-7"
    assert end_of(site.get("/inbox")) == "the end of inbox:ada"
    for address in ("/events/team-8", "/events/inbox:ada", "/events/inbox:mallory"):
        assert site.get(address)[0] == 403


@LOGIN
@pytest.mark.parametrize("user", [None, "mallory", ""])
def test_others_and_nobody_read_nothing_of_it(site: Site, user: str | None):
    if user is not None:
        site.log_in(user)

    assert site.get("/events/team-7")[0] == 403
    if user is None:
        assert site.get("/inbox")[0] == 403


@TOKEN
def test_a_token_opens_its_stream(site: Site):
    assert end_of(site.get(site.module.address_of("team-7"))) == "the end of team-7"


@TOKEN
def test_a_token_that_is_missing_forged_or_of_another_purpose_opens_nothing(site: Site):
    address = site.module.address_of("team-7")
    payload, _, signature = address.rpartition("=")[2].partition(".")
    other_payload = site.module.tokens.dumps("team-8").partition(".")[0]
    of_another_key = itsdangerous.URLSafeTimedSerializer("x", salt="read a stream").dumps("team-7")
    of_another_salt = itsdangerous.URLSafeTimedSerializer(KEY, salt="cookie").dumps("team-7")
    for token in (
        "",
        "team-7",
        payload,
        f"{payload}.",
        f"{other_payload}.{signature}",
        f"{payload}.{signature}x",
        of_another_key,
        of_another_salt,
    ):
        assert site.get(f"/events?token={token}")[0] == 403
    assert site.get("/events")[0] == 403


@TOKEN
def test_a_token_runs_out(site: Site, monkeypatch: pytest.MonkeyPatch):
    signer = itsdangerous.TimestampSigner
    now = signer.get_timestamp
    with monkeypatch.context() as earlier:
        earlier.setattr(signer, "get_timestamp", lambda self: now(self) - 8 * 3600 - 5)
        old = site.module.address_of("team-7")

    assert site.get(old)[0] == 403

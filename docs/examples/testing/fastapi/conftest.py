import pytest
from answers import app
from fastapi.testclient import TestClient

pytest_plugins = ["streamy_redis.testing"]


@pytest.fixture
def client(streamy_redis_url):
    with TestClient(app) as client:
        yield client

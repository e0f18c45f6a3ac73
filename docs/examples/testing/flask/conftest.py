import pytest
from jobs import app

pytest_plugins = ["streamy_redis.testing"]


@pytest.fixture
def client(streamy_redis_url):
    return app.test_client()

"""Applications that send while they are imported, for servers that import before they fork."""

from __future__ import annotations

import json
import os

from tests.apps.flask_app import app, streams

from .naive import SharedConnection

__all__ = ["app"]

# The master's threads and connections must not become the workers'.
streams.send_event("at import", str(os.getpid()))
prefix = json.loads(os.environ["TEST_CONFIG"])["prefix"]
connection = SharedConnection(os.environ["TEST_REDIS_URL"], prefix)


@app.post("/naively/<stream_id>/<name>")
def send_naively(stream_id: str, name: str) -> list[tuple[str, str]]:
    """Sends over the connection that the master had opened."""
    return connection.send_some(stream_id, name)

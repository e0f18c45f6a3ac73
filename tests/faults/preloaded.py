"""Applications that send while they are imported, for servers that import before they fork."""

from __future__ import annotations

import os

from tests.apps.flask_app import app, streams

__all__ = ["app"]

# The master's threads and connections must not become the workers'.
streams.send_event("at import", str(os.getpid()))

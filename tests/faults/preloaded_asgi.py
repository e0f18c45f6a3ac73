"""The same for Starlette: a send in a loop of its own, before the server's."""

from __future__ import annotations

import asyncio
import os

from tests.apps.starlette_app import app, streams

__all__ = ["app"]

asyncio.run(streams.send_event("at import", str(os.getpid())))

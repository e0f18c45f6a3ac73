"""What the web app and the generator have to agree on."""

from __future__ import annotations

import os

from streamy_redis import StreamConfig

URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
QUEUE = "llm:prompts"
# A writer sends up to 33 events a second, and a page that opens late wants all of them: here five
# minutes of generation. Text is small.
CONFIG = StreamConfig(history_length=10_000)

"""What the web app and the generator share."""

import os

import redis.asyncio as redis

from streamy_redis import AsyncStreamManager, StreamConfig

URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
QUEUE = "llm:prompts"
# A writer sends up to 33 events a second, and a page that opens late wants all of them: here five
# minutes of generation. Text is small.
# The prefix is the answers' own: whoever cancels one can end no other stream of this Redis.
config = StreamConfig(prefix="llm", history_length=10_000)
streams = AsyncStreamManager(URL, config=config)
store = redis.Redis.from_url(URL)

"""One list of behaviours, over threads, gevent, asyncio and memory://."""

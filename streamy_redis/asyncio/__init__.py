"""The shells for asyncio: they wait, read and write, and decide nothing."""

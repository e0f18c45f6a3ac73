import asyncio
import json
import sys

from langgraph_sdk import get_client


async def read(url, run_id):
    async for part in get_client(url=url).runs.join_stream("thread-1", run_id):
        print(json.dumps([part.event, part.data, part.id]), flush=True)
        if part.event == "stream-end":
            break


asyncio.run(read(*sys.argv[1:]))

"""Asks for a stream with a library that can't resume, and anew until it has the whole answer.

python ask.py LIBRARY URL STREAM_ID
"""

from __future__ import annotations

import json
import sys
import time

import httpx
import openai


def with_openai(url: str, stream_id: str) -> str:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=30)
    chunks = client.chat.completions.create(
        model=stream_id, messages=[{"role": "user", "content": "?"}], stream=True
    )
    # Our own events have an object for data, which it takes for a chunk without choices.
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def with_httpx(url: str, stream_id: str) -> str:
    answer = httpx.get(f"{url}/events/{stream_id}?replay=all", timeout=30)
    lines = [line for line in answer.text.split("\n") if line.startswith('data: {"choices"')]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    return "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)


ASK = {"openai": with_openai, "httpx": with_httpx}


def main(library: str, url: str, stream_id: str) -> None:
    while True:
        try:
            text = ASK[library](url, stream_id)
        except (openai.APIConnectionError, httpx.TransportError) as error:
            print(json.dumps(["broke off", repr(error)]), flush=True)
            time.sleep(0.1)
        else:
            print(json.dumps(["whole", text]), flush=True)
            return


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The app of integrations/fastapi-llm, as a user runs it."""

from __future__ import annotations

import itertools
import json
import runpy
import sys
import uuid
from pathlib import Path

from streamy_redis import StreamConfig, StreamManager
from tests.browser import EventSource
from tests.child import Child
from tests.servers import RedisServer
from tests.web_servers import ROOT, ServerKind, WebServer, http

from .witness import log_key

__all__ = ["PROMPT", "AnswerStack", "tokens"]

FOLDER = ROOT / "integrations" / "fastapi-llm"
WEB = ServerKind(
    "uvicorn",
    ["uvicorn", "--port", "{port}", "--workers", "{workers}", "{app}"],
    is_asgi=True,
    is_up="Application startup complete",
)
PROMPT = "What is a stream, really?"


class AnswerStack:
    """Two web workers and a generator, on a Redis of their own that keeps its data."""

    def __init__(self, logs: Path, *, pause: float = 0.005) -> None:
        self._logs = logs
        self._numbers = itertools.count(1)
        self.redis_server = RedisServer(durable=True).start()
        self._env = {"STREAMY_REDIS_URL": self.redis_server.url, "LLM_PAUSE": str(pause)}
        self._store = self.redis_server.connect()
        self._browsers: list[EventSource] = []
        self.web = WebServer(WEB, "app:app", workers=2, env=self._env, directory=FOLDER, ready="/")
        self.start_generator()

    def start_generator(self) -> None:
        self.generator = Child(
            [sys.executable, "generator.py"],
            self._logs / f"generator-{next(self._numbers)}.log",
            env={**self._env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            cwd=FOLDER,
        )

    def ask(self, prompt: str = PROMPT) -> str:
        answer = http.post(f"{self.web.url}/answers", json={"prompt": prompt})
        return answer.raise_for_status().json()["id"]

    def lose(self, prompt: str) -> str:
        """Redis hands the prompt over, and the connection breaks before the generator has it."""
        answer_id = uuid.uuid4().hex
        with StreamManager(self.redis_server.url, config=StreamConfig(prefix="llm")) as streams:
            streams.send_event(answer_id, prompt, "prompt")
        self._store.lpush("llm:prompts:running:1", json.dumps([answer_id, prompt]))
        for client in self._store.client_list():
            if client["cmd"] == "blmove":
                self._store.client_kill_filter(_id=client["id"])
        return answer_id

    def page(self, answer_id: str) -> EventSource:
        browser = EventSource(f"{self.web.url}/answers/{answer_id}")
        self._browsers.append(browser)
        return browser

    def running(self) -> int:
        """How many answers the generator is at."""
        return self._store.llen("llm:prompts:running:1")  # type: ignore[no-any-return]

    def waits(self) -> bool:
        """Whether the generator waits for a prompt."""
        return any(client["cmd"] == "blmove" for client in self._store.client_list())

    def lose_history(self, answer_id: str) -> None:
        """Delete it behind everybody's back."""
        assert self._store.delete(log_key(answer_id, "llm")) == 1

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        self._store.close()
        self.generator.stop()
        self.web.close()
        self.redis_server.close()

    def __enter__(self) -> AnswerStack:
        try:
            self.web.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def tokens(prompt: str = PROMPT) -> list[str]:
    """What the model says to a prompt."""
    return runpy.run_path(str(FOLDER / "model.py"))["text_of"](prompt)

"""Firefox without a window, by its own protocol: https://w3c.github.io/webdriver-bidi/."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
from typing import Any

from websockets.sync.client import ClientConnection, connect

from .child import Child, new_folder
from .deadline import Deadline
from .tools import need

__all__ = ["Firefox", "Page"]

_LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


class Firefox:
    """One with a profile of its own, in a `with` block."""

    def __enter__(self) -> Firefox:
        self._folder = new_folder("firefox")
        command = [need("firefox-esr"), "--headless", "--no-remote", "--remote-debugging-port", "0"]
        command += ["--profile", str(self._folder)]
        env = {"HOME": str(self._folder)}
        self._child = Child(command, self._folder / "log", env=env)
        with contextlib.ExitStack() as stack:
            stack.callback(self._leave)
            listening = Deadline(60).until(lambda: _LISTENING.search(self._child.output))
            connection = connect(f"{listening[1]}/session", max_size=None)
            self._connection: ClientConnection = stack.enter_context(connection)
            self._numbers = itertools.count(1)
            self.call("session.new", capabilities={})
            self._stack = stack.pop_all()
        return self

    def _leave(self) -> None:
        self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol, and its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=30))
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def open(self, url: str) -> Page:
        context = self.call("browsingContext.create", type="tab")["context"]
        self.call("browsingContext.navigate", context=context, url=url, wait="complete")
        return Page(self, context)


class Page:
    """A tab, of which a test needs what it needs of Chromium's."""

    def __init__(self, browser: Firefox, context: str) -> None:
        self._browser = browser
        self._context = context

    def evaluate(self, expression: str) -> Any:
        answer = self._browser.call(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        value = answer["result"].get("value")
        return None if value is None else json.loads(value)

"""A reader at work, on its way through a proxy of its own: a process, or a page in a browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.child import Child, new_folder
from tests.event_stream import MessageEvent
from tests.proxy import CuttingProxy, StreamRequest
from tests.web_servers import ROOT, WebServer

__all__ = [
    "EXAMPLES",
    "HERE",
    "NODE_MODULES",
    "Browser",
    "PageReading",
    "ProcessReading",
    "Reading",
    "page_of",
]

HERE = Path(__file__).parent
NODE_MODULES = HERE / "node_modules"
EXAMPLES = ROOT / "docs" / "examples" / "readers"

_PAGE = """<!doctype html>
<meta charset="utf-8">
<script type="importmap">{"imports": {
  "@microsoft/fetch-event-source": "/npm/@microsoft/fetch-event-source/lib/esm/index.js",
  "event-source-polyfill": "/npm/event-source-polyfill/src/eventsource.js",
  "reconnecting-eventsource": "/npm/reconnecting-eventsource/build/esm/reconnecting-eventsource.js"
}}</script>
<script>
  const { url, method, names = [], end } = PARAMETERS, token = "of no one";
  const seen = [];
  const show = ({ event, type = event || "message", data, id, lastEventId = id }) =>
    seen.push([type, data, lastEventId]);
</script>
"""
# As bundlers do with it.
_AS_A_MODULE = """const module = {{ exports: {{}} }}, exports = module.exports;
{source}
export const {{ EventSourcePolyfill }} = module.exports;
"""


class Reading:
    """What a reader asked for, and what it was given.

    Attributes:
        events: all that it was given, its own events included, oldest first.
    """

    def __init__(self, server: WebServer) -> None:
        self.proxy = CuttingProxy(server.port)

    @property
    def events(self) -> list[MessageEvent]:
        raise NotImplementedError

    @property
    def requests(self) -> list[StreamRequest]:
        return self.proxy.requests

    @property
    def statuses(self) -> list[int | None]:
        return [request.status for request in self.requests]

    @property
    def is_open(self) -> bool:
        return bool(self.requests) and self.statuses[-1] == 200

    def describe(self) -> str:
        return f"{self.requests[-4:]}\n{self.events[-2:]!r:.500}"

    def close(self) -> None:
        self.proxy.close()


class ProcessReading(Reading):
    """A process that prints each event as a line of JSON, and ends when its reader has."""

    def __init__(self, server: WebServer, command: Sequence[str]) -> None:
        super().__init__(server)
        filled = [part.format(url=self.proxy.url) for part in command]
        self.child = Child(filled, new_folder("reader") / "log")

    @property
    def lines(self) -> list[list[str]]:
        *lines, _unfinished = self.child.output.split("\n")
        return [json.loads(line) for line in lines if line.startswith("[")]

    @property
    def events(self) -> list[MessageEvent]:
        return [MessageEvent(*line) for line in self.lines]

    def describe(self) -> str:
        return f"{self.requests[-4:]}\n{self.child.output[-500:]}"

    def close(self) -> None:
        self.child.stop()
        super().close()


class Browser:
    """Pages, each of the origin of its proxy; what they import comes from node_modules."""

    def __init__(self, chromium: Any) -> None:
        self._context = chromium.new_context()
        self._context.route("**/npm/**", self._serve_package)

    def _serve_package(self, route: Any) -> None:
        path = NODE_MODULES / route.request.url.partition("/npm/")[2]
        # Bundlers add what an import leaves out.
        path = path if path.suffix else path.with_suffix(".js")
        source = path.read_text()
        if path.name == "eventsource.js":
            source = _AS_A_MODULE.format(source=source)
        route.fulfill(body=source, content_type="text/javascript")

    def open(self, origin: str, body: str, parameters: dict[str, Any]) -> Any:
        page = self._context.new_page()
        html = _PAGE.replace("PARAMETERS", json.dumps(parameters)) + body
        page.route("**/page", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(f"{origin}/page")
        return page

    def close(self) -> None:
        self._context.close()


class PageReading(Reading):
    """A page: the events that it shows, and the items of its list, as htmx makes them."""

    def __init__(
        self, server: WebServer, browser: Browser, body: str, **parameters: object
    ) -> None:
        super().__init__(server)
        self._page = browser.open(self.proxy.url, body, parameters)
        self._events: list[MessageEvent] = []

    @property
    def events(self) -> list[MessageEvent]:
        self._events += [MessageEvent(*event) for event in self._page.evaluate("seen.splice(0)")]
        return self._events

    @property
    def items(self) -> list[str]:
        items: list[str] = self._page.locator("ul > li").all_inner_texts()
        return items


def page_of(example: str) -> str:
    """The body of a page that is, or runs, the example of this name."""
    text = (EXAMPLES / example).read_text()
    if example.endswith(".js"):
        return f'<script type="module">{text}</script>'
    return f"{HTMX[example]}{text}"


def _scripts(*paths: str) -> str:
    return "".join(f'<script src="/npm/{path}"></script>' for path in paths)


# What htmx is loaded with.
HTMX = {
    "htmx_2.html": _scripts("htmx.org/dist/htmx.js", "htmx-ext-sse/sse.js"),
    "htmx_4.html": _scripts("htmx-4/dist/htmx.js", "htmx-4/dist/ext/hx-sse.js"),
}

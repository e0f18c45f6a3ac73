"""A page that shows a stream, served by Flask's own server.

The wheel holds no boards and their servers; Flask brings a server along, so this needs nothing
that a user of the Flask extra hasn't got.
"""

from __future__ import annotations

import importlib.resources
import itertools
import logging
import socket
import threading
from typing import Any

from flask import Flask, Response, abort, request
from werkzeug.serving import WSGIRequestHandler, make_server

from .config import StreamConfig
from .exceptions import RedisUnavailable, StreamEnded, StreamyError
from .sync.manager import StreamManager

__all__ = ["DemoServer"]

STREAM = "demo"
# Seconds between two events that come by themselves.
_TICK_INTERVAL = 1.0

_log = logging.getLogger("streamy_redis.demo")


class DemoServer:
    """The page, its stream, and a thread that sends a tick a second.

    Args:
        source: a Redis URL.
        port: of the loopback interface; 0 for any.

    Raises:
        OSError: the port is taken.
    """

    stream_id = STREAM

    def __init__(self, source: str, config: StreamConfig, port: int) -> None:
        self._streams = StreamManager(source, config=config)
        self._stopped = threading.Event()
        app = _app(self._streams)
        # Flask's server ends the process where it can't have the port.
        with socket.create_server(("127.0.0.1", port)) as listening:
            self._server = make_server(
                "127.0.0.1",
                listening.getsockname()[1],
                app,
                threaded=True,
                request_handler=_QuietHandler,
                fd=listening.fileno(),
            )
        self.url = f"http://127.0.0.1:{self._server.port}/"

    def serve(self) -> None:
        """Serves until Ctrl-C, which is how one stops it, and no error."""
        threading.Thread(target=self._tick, name="streamy-redis demo", daemon=True).start()
        try:
            self._server.serve_forever()
        finally:
            self._stopped.set()
            self._streams.close()
            self._server.server_close()

    def _tick(self) -> None:
        for number in itertools.count(1):
            if self._stopped.wait(_TICK_INTERVAL):
                return
            try:
                self._streams.send_event(STREAM, f"tick {number}", "tick")
            except StreamEnded:
                # Somebody pressed the button.
                continue
            except RedisUnavailable as exc:
                _log.warning("a tick was not sent: %s", exc)


class _QuietHandler(WSGIRequestHandler):
    """Without a line for each request, which would hide what the command line says."""

    def log(self, type: str, message: str, *args: Any) -> None:
        _log.debug(message, *args)


def _app(streams: StreamManager) -> Flask:
    app = Flask(__name__)
    page = importlib.resources.files(__package__).joinpath("demo.html").read_text("utf-8")

    @app.before_request
    def refuse_other_sites() -> None:
        """Another site's page could end the stream, out of the browser that visits both."""
        page = f"http://{request.host}"
        is_elsewhere = request.headers.get("Origin", page) != page or request.headers.get(
            "Sec-Fetch-Site", "none"
        ) not in ("same-origin", "none")
        # A name that was made to point here (DNS rebinding) is of one origin with its page.
        if request.host.partition(":")[0] not in ("localhost", "127.0.0.1"):
            abort(403, "The demo is at localhost, and has no other name.")
        if is_elsewhere and request.method not in ("GET", "HEAD", "OPTIONS"):
            abort(403, "Only the demo's own page may do that.")

    @app.get("/")
    def show() -> str:
        return page

    @app.get("/stream")
    def stream() -> Response:
        return streams.get_stream(STREAM, last_event_id=request.args.get("cursor"), replay=5)

    @app.post("/send")
    def send() -> dict[str, str]:
        return {"id": streams.send_event(STREAM, request.get_data())}

    @app.post("/end")
    def end() -> dict[str, bool]:
        return {"ended": streams.end_stream(STREAM)}

    @app.post("/anew")
    def start_anew() -> dict[str, bool]:
        return {"deleted": streams.delete_stream(STREAM)}

    @app.errorhandler(StreamyError)
    def refuse(error: StreamyError) -> tuple[str, int]:
        return str(error), 409

    return app

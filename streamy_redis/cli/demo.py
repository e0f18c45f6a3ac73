"""demo: a stream in the browser, from an installed package."""

from __future__ import annotations

import logging

import click

from ..connections import MEMORY_URL, url_from_environment
from .command import command
from .failure import ExitCode, Failure
from .options import checked_config, checked_source, redis_options
from .output import log_to_standard_error

__all__ = ["demo"]


@command("streamy-redis demo", "streamy-redis demo --redis redis://localhost --port 0")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any."
)
@redis_options
def demo(port: int, redis_url: str | None, prefix: str) -> None:
    """Show a stream in the browser, served on this machine.

    With Flask's own server, in this process. Without a Redis in --redis or the environment it
    runs on memory://. The boards with several workers are in the repository: scripts/demo.
    """
    config = checked_config(prefix)
    try:
        from ..demo import DemoServer

        source = checked_source(redis_url or url_from_environment(MEMORY_URL))
    except ImportError as exc:
        message = f"{exc}; the demo needs: pip install 'streamy-redis[cli,flask,memory]'"
        raise Failure(message, ExitCode.USAGE) from exc
    try:
        server = DemoServer(source, config, port)
    except OSError as exc:
        message = f"port {port} can't be used ({exc.strerror}); take another one, with --port"
        raise Failure(message) from exc
    log_to_standard_error(logging.WARNING)
    click.echo(f"Open {server.url} in one or more windows; Ctrl-C stops.")
    if source == MEMORY_URL:
        click.echo("Events live in this process only (memory://); --redis URL shares them.")
    else:
        click.echo(f"From another shell: streamy-redis send {server.stream_id} hello")
    server.serve()

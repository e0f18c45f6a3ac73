"""The framework that runs what asks for a stream, and errors for the manager of the other kind.

A framework is never imported for it: what isn't imported runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys

__all__ = ["import_adapter", "not_for_asgi", "not_for_wsgi", "refuse_in_asgi", "refuse_in_flask"]


def import_adapter(framework: str) -> None:
    """Imports ours to a framework that the program has imported.

    With the first stream it may be too late: a crowd may hold all descriptors then.
    """
    if sys.modules.get(framework) is not None:
        # Where that can't be, get_stream() says why.
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{__package__}.{framework}")


def not_for_asgi() -> RuntimeError:
    return RuntimeError(
        "a StreamManager's streams are for Flask; in an ASGI application, such as one of Starlette "
        "or FastAPI, use AsyncStreamManager"
    )


def not_for_wsgi() -> RuntimeError:
    return RuntimeError(
        "an AsyncStreamManager's streams are for Starlette and FastAPI; in a Flask view use "
        "StreamManager"
    )


def refuse_in_asgi() -> None:
    """For what only Flask can serve.

    Raises:
        RuntimeError: an ASGI endpoint runs this, in the event loop or in a thread of it.
    """
    # A Flask application may well be mounted in an ASGI one, or have views that are coroutines.
    if not _has_flask_context() and (_has_running_loop() or _is_thread_of_a_loop()):
        raise not_for_asgi()


def refuse_in_flask() -> None:
    """For what only ASGI can serve.

    Raises:
        RuntimeError: a Flask view runs this.
    """
    # An application's context alone may be there for the sake of an extension.
    if "flask" in sys.modules:
        from flask import has_request_context

        if has_request_context():
            raise not_for_wsgi()


def _has_flask_context() -> bool:
    if "flask" not in sys.modules:
        return False
    from flask import has_app_context

    return has_app_context()


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_thread_of_a_loop() -> bool:
    """Whether this is one of the threads in which Starlette and FastAPI run ``def`` endpoints."""
    if "anyio" not in sys.modules:
        return False
    from anyio.from_thread import check_cancelled

    try:
        check_cancelled()
    except RuntimeError:
        return False
    return True

"""The Flask apps of a manager: what each of them names, and how it writes JSON."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import StreamConfig
from ..jsonable import to_json

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["NOTHING", "FlaskApps", "Named"]


@dataclass(frozen=True, slots=True)
class Named:
    """The Redis and the settings that somebody names; None for what the manager has by itself."""

    url: str | None = None
    config: StreamConfig | None = None


NOTHING = Named()


class FlaskApps:
    """The apps that a manager is the extension of."""

    def __init__(self) -> None:
        self._named: weakref.WeakKeyDictionary[Flask, Named] = weakref.WeakKeyDictionary()
        # Who answers for the others where no app's context is active: in jobs and scripts. Not
        # weakly: an app that nobody else holds would be gone at some time or other.
        self._newest: Flask | None = None

    def add(self, app: Flask, named: Named) -> None:
        self._named[app] = named
        self._newest = app

    def go_back_to(self, app: Flask | None) -> None:
        """That app answers for the others again; None for no app."""
        self._newest = app

    def named_here(self) -> Named | None:
        """What the app names whose context is active, if it is one of these."""
        app = _current_app() if self._named else None
        return None if app is None else self._named.get(app)

    def to_json(self, value: Any) -> str:
        """As the app's JSON provider writes it; as other frameworks do where there is no app."""
        app = _current_app() or self._newest
        return to_json(value) if app is None else _provided_json(app, value)


def _current_app() -> Flask | None:
    # What isn't imported has no context.
    if "flask" not in sys.modules:
        return None
    from flask import current_app, has_app_context

    if not has_app_context():
        return None
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def _provided_json(app: Flask, value: Any) -> str:
    from flask.json.provider import DefaultJSONProvider

    if type(app.json).dumps is DefaultJSONProvider.dumps:
        return app.json.dumps(value, separators=(",", ":"), allow_nan=False)
    # One of the application's own may take no such arguments.
    return app.json.dumps(value)

"""The Flask application inside ASGI, by each of the bridges that there are."""

from __future__ import annotations

import warnings

from a2wsgi import WSGIMiddleware as A2WSGI
from asgiref.wsgi import WsgiToAsgi

from tests.apps.flask_app import app

with warnings.catch_warnings():
    # Starlette would rather have a2wsgi.
    warnings.simplefilter("ignore")
    from starlette.middleware.wsgi import WSGIMiddleware

a2wsgi = A2WSGI(app)
asgiref = WsgiToAsgi(app)
starlette = WSGIMiddleware(app)

"""A plain nginx in front of one server, for the doctor to find fault with."""

from __future__ import annotations

from tests.nginx import Nginx

__all__ = ["in_front_of"]

_CONFIG = """
pid {folder}/pid;
error_log stderr;
worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {
        listen 127.0.0.1:{port};
        location / {
            proxy_pass %s;
            proxy_http_version %s;
            %s
        }
    }
}
"""


def in_front_of(upstream: str, *directives: str, version: str = "1.0") -> Nginx:
    """Passes requests on, with more directives for the location.

    What it buffers it holds back until a buffer is full, unless the response comes in chunks: so
    Flask's on gunicorn, which end with their connection, and not uvicorn's.

    Args:
        version: of HTTP, to the server.
    """
    return Nginx(_CONFIG % (upstream, version, "\n".join(directives)))

"""A real nginx in front of a server, for what a proxy may do to a stream."""

from __future__ import annotations

import subprocess

from tests.child import new_folder
from tests.nginx import Nginx

__all__ = ["InFront"]

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
        listen 127.0.0.1:{port} %s;
        location / {
            proxy_pass %s;
            proxy_http_version %s;
            %s
        }
    }
}
"""


class InFront(Nginx):
    """Passes requests on, with more directives for the location.

    What it buffers it holds back until a buffer is full, unless the response comes in chunks: so
    Flask's on gunicorn, which end with their connection, and not uvicorn's.

    Args:
        version: of HTTP, to the server.
        is_tls: with a certificate that it has signed itself.

    Attributes:
        certificate: the file of it.
    """

    def __init__(
        self, upstream: str, *directives: str, version: str = "1.0", is_tls: bool = False
    ) -> None:
        folder = new_folder("certificate")
        self.certificate, key = str(folder / "certificate"), str(folder / "key")
        tls = ""
        if is_tls:
            self._make_certificate(key)
            tls = f"ssl; ssl_certificate {self.certificate}; ssl_certificate_key {key}"
        super().__init__(_CONFIG % (tls, upstream, version, "\n".join(directives)))
        if is_tls:
            self.url = self.url.replace("http:", "https:")

    def _make_certificate(self, key: str) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", key, "-out", self.certificate),
                *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )

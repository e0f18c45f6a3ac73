"""A real nginx in front of a server, for what a proxy may do to a stream."""

from __future__ import annotations

from tests.certificate import Certificate
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
    those of HTTP/1.0.

    Args:
        version: of HTTP, to the server.
        is_tls: with a certificate of an authority of our own.

    Attributes:
        authority: the file of the authority's certificate.
    """

    def __init__(
        self, upstream: str, *directives: str, version: str = "1.0", is_tls: bool = False
    ) -> None:
        tls = ""
        if is_tls:
            made = Certificate.made_in(new_folder("certificate"), "127.0.0.1")
            self.authority = made.authority
            tls = f"ssl; ssl_certificate {made.certificate}; ssl_certificate_key {made.key}"
        super().__init__(_CONFIG % (tls, upstream, version, "\n".join(directives)))
        if is_tls:
            self.url = self.url.replace("http:", "https:")

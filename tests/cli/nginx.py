"""A real nginx in front of one server."""

from __future__ import annotations

import shutil
import socket

from tests.child import Child, new_folder
from tests.deadline import Deadline
from tests.ports import free_port

__all__ = ["NGINX", "Nginx"]

# Debian keeps it where only root's PATH leads.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_http_version {version};
            {directives}
        }}
    }}
}}
"""


class Nginx:
    """Passes requests on, with more directives for the location.

    What it buffers it holds back until a buffer is full, unless the response comes in chunks: so
    Flask's on gunicorn, which end with their connection, and not uvicorn's.

    Args:
        version: of HTTP, to the server.
    """

    def __init__(self, upstream: str, *directives: str, version: str = "1.0") -> None:
        assert NGINX is not None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder = new_folder("nginx")
        config = folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                port=self.port,
                upstream=upstream,
                version=version,
                directives="\n".join(directives),
            )
        )
        self._child = Child([NGINX, "-c", str(config), "-p", str(folder)], folder / "log")

    def _answers(self) -> bool:
        assert self._child.running, self._child.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Nginx:
        Deadline(10).until(self._answers, lambda: f"nginx is up\n{self._child.output}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._child.stop()

"""A real nginx."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping

from .child import Child, new_folder
from .deadline import Deadline
from .ports import free_port
from .tools import need
from .web_servers import ROOT

__all__ = ["SHIPPED", "Nginx", "in_front_of", "shipped"]

SHIPPED = ROOT / "integrations" / "nginx" / "nginx.conf"


_IN_FRONT = """
pid {folder}/pid;
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
        proxy_http_version VERSION;
        location / { proxy_pass SERVER; }
    }
}
"""


class Nginx:
    """nginx with a configuration of its own, from `start()` or `with` to `close()`.

    Args:
        config: with {folder}, where it may write, and {port}, where it has to listen, to be
            filled in; other braces are as they are.
    """

    def __init__(self, config: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = new_folder("nginx")
        config = config.replace("{folder}", str(self._folder)).replace("{port}", str(self.port))
        self._config = self._folder / "nginx.conf"
        self._config.write_text(config)
        self._child: Child | None = None

    def start(self) -> Nginx:
        command = [need("nginx"), "-e", "stderr", "-c", str(self._config), "-p", str(self._folder)]
        self._child = Child([*command, "-g", "daemon off;"], self._folder / "log")
        Deadline(10).until(self._answers, lambda: f"nginx is up\n{self.child.output}")
        return self

    @property
    def child(self) -> Child:
        assert self._child is not None
        return self._child

    def reload(self) -> None:
        """Read the configuration anew, and look up its names."""
        self.child.signal(signal.SIGHUP)

    def _answers(self) -> bool:
        assert self.child.running, self.child.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        if self._child is not None:
            self._child.stop()

    def __enter__(self) -> Nginx:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def shipped(replicas: Mapping[str, str], changes: Mapping[str, str] | None = None) -> Nginx:
    """The one of integrations/nginx, in front of servers of a test.

    Args:
        replicas: the addresses that take the place of those in the file.
        changes: other texts of the file, and what takes their place.
    """
    config = SHIPPED.read_text()
    here = {"0.0.0.0:8080": "127.0.0.1:{port}", "/tmp/": "{folder}/", **replicas}
    for text, replacement in {**here, **(changes or {})}.items():
        assert text in config, f"{text!r} isn't in {SHIPPED}"
        config = config.replace(text, replacement)
    return Nginx(config)


def in_front_of(url: str, version: str) -> Nginx:
    """One of no more than a line, in front of a server, to which it speaks this HTTP."""
    return Nginx(_IN_FRONT.replace("SERVER", url).replace("VERSION", version))

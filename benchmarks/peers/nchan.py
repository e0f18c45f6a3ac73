"""nchan: a module of nginx, in C, with its channels in Redis."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["absence", "command", "write_configuration"]

_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
)
_CONFIGURATION = """\
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream channels {{ nchan_redis_server {redis}; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /ping {{ return 200 "pong"; }}
        location ~ ^/events/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_subscriber_first_message newest;
            nchan_channel_id $1;
            nchan_redis_pass channels;
        }}
        location ~ ^/publish/(.+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 1h;
            nchan_redis_pass channels;
        }}
    }}
}}
"""


def absence() -> str | None:
    """Why it can't take part, or None."""
    if shutil.which("nginx") is None:
        return "no nginx on PATH (Debian: apt install nginx libnginx-mod-nchan)"
    if _module() is None:
        return "nginx has no nchan module (Debian: apt install libnginx-mod-nchan)"
    return None


def _module() -> Path | None:
    return next((path for path in _MODULES if path.exists()), None)


def write_configuration(folder: Path, port: int, redis_url: str, *, files: int) -> Path:
    """A configuration of one worker, in a folder of its own."""
    # The worker runs as another user when nginx is started as root.
    folder.chmod(0o755)
    path = folder / "nginx.conf"
    path.write_text(
        _CONFIGURATION.format(
            module=_module(),
            files=files,
            connections=files - 100,
            folder=folder,
            redis=redis_url,
            port=port,
        )
    )
    return path


def command(configuration: Path) -> list[str]:
    """How it is started."""
    return ["nginx", "-c", str(configuration), "-p", str(configuration.parent), "-e", "stderr"]

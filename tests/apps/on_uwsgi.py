"""uWSGI, which pip installs beside Python: <port> <module:name>, and options."""

from __future__ import annotations

import os
import sys
from pathlib import Path

port, name, *options = sys.argv[1:]
command = [
    *("uwsgi", "--http-socket", f"127.0.0.1:{port}", "--wsgi", name, "--master"),
    *("--enable-threads", "--threads", "4", "--die-on-term", *options),
]
os.execv(Path(sys.executable).parent / "uwsgi", command)

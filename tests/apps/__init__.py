"""Programs and web applications that tests start as processes of their own."""

from __future__ import annotations

import logging
import os
import sys

# A logger of which a test wants to see everything in the server's output.
_debugged = os.environ.get("TEST_DEBUG")
if _debugged:
    logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
    logging.getLogger(_debugged).setLevel(logging.DEBUG)

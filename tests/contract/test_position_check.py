"""What only the comparison with the log shows, on a stream where nothing happens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Shell


@pytest.mark.real_server
def test_a_history_rolled_back_in_silence_is_a_reset(shell: Shell, store: Any):
    """No connection is lost and nothing is published."""
    streams = shell.manager(position_check_interval=0.3)
    reader = shell.reader(streams, "room")
    first = streams.send_event("room", "kept")
    image = store.dump(shell.log("room"))
    lost = streams.send_event("room", "lost")
    reader.wait_for(2)

    store.restore(shell.log("room"), 0, image, replace=True)

    reader.wait_for(4, timeout=5)
    assert reader.kinds == ["event", "event", "reset", "event"]
    assert json.loads(reader.received[2].data)["requested"] == lost
    assert reader.ids[3] == first
    assert reader.gets_no_more(0.7), "one reset, however often it is compared"

"""A replica of a stage's server that takes its place, with all that was acknowledged or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from tests.deadline import Deadline

if TYPE_CHECKING:
    from .stage import Stage

__all__ = ["Standby"]


class Standby:
    """It follows the stage's server until it takes its place; then that one is the standby."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._server = stage.another_server()
        self.follow()

    def follow(self) -> None:
        """Forget what it has alone, and follow the stage's server until it has everything."""
        with self._stage.admin() as master, self._admin() as replica:
            # It waits 5 s for more replicas otherwise.
            master.config_set("repl-diskless-sync-delay", 0)
            replica.replicaof("127.0.0.1", str(self._stage.redis.port))
            Deadline(10).until(lambda: is_up_to_date(replica), lambda: replica.info("replication"))
            self._catch_up(master, replica)

    def _catch_up(self, master: redis.Redis, replica: redis.Redis) -> None:
        written = master.info("replication")["master_repl_offset"]
        Deadline(10).until(
            lambda: replica.info("replication")["slave_repl_offset"] >= written,
            lambda: (written, replica.info("replication")),
        )

    def lag(self) -> None:
        """From now on it gets nothing any more, and the stage's server doesn't care."""
        with self._admin() as replica:
            replica.replicaof("NO", "ONE")

    def take_over(self) -> None:
        """All ways of the stage lead here from now on."""
        stage = self._stage
        stage.redis, self._server = self._server, stage.redis
        for proxy in stage.proxies:
            proxy.switch(stage.redis.port)

    def take_over_with_everything(self) -> None:
        """As FAILOVER does: writes wait until all is here, and are then made here."""
        with self._stage.admin() as master, self._admin() as replica:
            master.execute_command("CLIENT", "PAUSE", 5000, "WRITE")
            self._catch_up(master, replica)
            replica.replicaof("NO", "ONE")
            self.take_over()
            master.client_unpause()

    def _admin(self) -> redis.Redis:
        return self._stage.admin(self._server)

    def close(self) -> None:
        self._server.close()


def is_up_to_date(replica: redis.Redis) -> bool:
    """Whether it has got everything once, and written it to its own disk."""
    info = replica.info()
    return (
        info.get("master_link_status") == "up"
        and info["aof_enabled"] == 1
        and not info["aof_rewrite_in_progress"]
        and not info["aof_rewrite_scheduled"]
    )

"""The stream of one open response, or of one reader inside the process: it waits and takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..config import OPEN_TIMEOUT, TROUBLE_INTERVAL, StreamConfig
from ..core.publication import Position
from ..core.replay import Replay
from ..core.subscriber import CloseReason, Limits, Outgoing, Pacing, Subscriber
from ..exceptions import ResponseCut
from ..servers.descriptors import is_shortage
from .handover import ResponseHead, TakenSocket, obstacle, response_head
from .listener import Listener
from .wakeup import WakeUp

__all__ = ["Handover", "Stream"]


class Stream:
    """An open subscriber and the thread that takes its frames, until it is handed over."""

    writes_at_once = False
    is_chunked = False

    def __init__(
        self,
        listener: Listener,
        config: StreamConfig,
        stream_id: str,
        *,
        cursor: Position | None,
        replay: Replay,
        event_name: str | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self._listener = listener
        self._config = config
        self._ready = WakeUp()
        # Breaks the connection off, with a write under way, and says whether it could: the server
        # has to show it.
        self.abort: Callable[[], bool] | None = None
        # Says how long its client may let TCP wait, in milliseconds, in the place of what was said.
        self.swap_user_timeout: Callable[[int, int], None] | None = None
        # Why it was not handed over.
        self._obstacle = "something stands around the body of its response"
        self.subscriber = Subscriber(
            stream_id,
            self,
            Limits.of(config),
            cursor=cursor,
            replay=replay,
            event_name=event_name,
            pacing=pacing,
            now=time.monotonic(),
        )

    def wake(self) -> None:
        """There is something to take. Called by the listener's threads."""
        self._ready.set()
        if self.subscriber.is_aborted and self.abort is not None:
            self.abort()

    def write(self, data: bytes) -> bool:
        raise AssertionError("a subscriber whose frames are taken by a thread never rests")

    def add(self, port: int | None = None) -> bool:
        """Registers the subscriber; False if there are too many.

        Args:
            port: where the WSGI request came to that it answers.
        """
        return self._listener.add(self.subscriber, port)

    def add_soon(self) -> None:
        """Registers a reader inside this process, whose thread may be interrupted anywhere."""
        self._listener.add_soon(self.subscriber)

    def wait_open(self) -> None:
        """Waits a moment until the log has said where the stream begins, or that it has ended.

        No longer than OPEN_TIMEOUT, and not at all while Redis is known to be away.
        """
        if not self._listener.is_away:
            self.is_open_within(OPEN_TIMEOUT)

    def is_open_within(self, seconds: float) -> bool:
        """Waits; False if Redis hasn't answered by then, or never will."""
        deadline = time.monotonic() + seconds
        while not self._is_decided:
            self._ready.clear()
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self.lasting_trouble is not None:
                return False
            if not self._is_decided:
                self._ready.wait(min(remaining, TROUBLE_INTERVAL))
        return True

    @property
    def _is_decided(self) -> bool:
        return self.subscriber.start is not None or self.subscriber.closed is not None

    @property
    def trouble(self) -> Exception | None:
        """Why Redis doesn't answer, as far as that is known."""
        return self.lasting_trouble or self._listener.trouble

    @property
    def lasting_trouble(self) -> Exception | None:
        """The same, where it is of no use to wait."""
        return self._listener.lasting_trouble(self.subscriber.stream_id)

    @property
    def has_nothing_to_say(self) -> bool:
        """Whether the stream had ended before the cursor: 204, which stops an EventSource."""
        return self.subscriber.closed is CloseReason.END and self.subscriber.start is None

    def prepare_handover(
        self,
        environ: Mapping[str, Any],
        status: str,
        headers: list[tuple[str, str]],
        on_end: Callable[[], None],
    ) -> Handover | None:
        """Lets its frames be given to the listener to write, where the server allows that.

        Args:
            environ: of the WSGI request whose response this is.
            status, headers: of the response, as WSGI has them.
            on_end: called when the response has ended, by a thread that must not wait.

        Raises:
            ValueError: a header that HTTP can't carry.
            OSError: the process has no descriptor left; nothing else is served for the want of one.
        """
        reason = obstacle(environ) if self._config.handover else "handover is turned off"
        if reason is None:
            head = response_head(environ, status, headers)
            try:
                body_size = int(environ.get("CONTENT_LENGTH") or 0)
                taken = self._listener.prepare_handover(environ["gunicorn.socket"], body_size)
                return Handover(self._listener, self.subscriber, taken, head, on_end)
            except (OSError, RuntimeError) as exc:
                if isinstance(exc, OSError) and is_shortage(exc):
                    self._listener.refuse(self.subscriber)
                    raise
                reason = f"the socket can't be taken over: {exc}"
        self._obstacle = reason
        return None

    def take(self, *, until: float | None = None) -> Outgoing:
        """Waits for frames or the end; calling it again says that the last ones were written.

        Args:
            until: when to give up, and return with neither; None for never.
        """
        while True:
            self._ready.clear()
            outgoing = self._listener.take(self.subscriber)
            if outgoing.frames or outgoing.closed is not None:
                return outgoing
            remaining = None if until is None else until - time.monotonic()
            if remaining is not None and remaining <= 0:
                return outgoing
            self._ready.wait(remaining)

    def chunks(self) -> Iterator[bytes]:
        """What the response writes, as it comes, until it ends; it takes its reader's thread."""
        self._listener.take_thread(self._obstacle)
        user_timeout = self.subscriber.user_timeout
        self._swap_user_timeout(0, user_timeout)
        while True:
            frames, closed = self.take()
            if frames:
                yield b"".join(frames)
            if closed is not None:
                if closed.is_cut:
                    self._break_off()
                # What else the connection carries may wait longer.
                self._swap_user_timeout(user_timeout, 0)
                return

    def _swap_user_timeout(self, was: int, to: int) -> None:
        if self.swap_user_timeout is not None:
            self.swap_user_timeout(was, to)

    def _break_off(self) -> None:
        """Keeps the server from ending the response as one that is complete.

        Raises:
            ResponseCut: its connection is hidden.
        """
        if self.abort is None or not self.abort():
            raise ResponseCut

    def close(self) -> None:
        """The client has left, or has been told all. Repeating it is harmless."""
        self.abort = None
        self._listener.remove(self.subscriber)

    def forget(self) -> None:
        """As close(), but soon, and from a finalizer, too."""
        self._listener.forget(self.subscriber)


class Handover:
    """A stream on its way to the listener. Nothing has changed before take()."""

    def __init__(
        self,
        listener: Listener,
        subscriber: Subscriber,
        socket: TakenSocket,
        head: ResponseHead,
        on_end: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._subscriber = subscriber
        self._socket = socket
        self._head = head
        self._on_end = on_end

    @property
    def is_taken(self) -> bool:
        """Whether the stream is the listener's, and its worker's socket goes nowhere."""
        return self._socket.is_taken

    def take(self) -> None:
        """Makes it so. Where that raises, is_taken says how far it came."""
        self._listener.hand_over(self._subscriber, self._socket, self._head, self._on_end)

    def close(self) -> None:
        """The worker is done with its response. Repeating it is harmless."""
        self._socket.close()

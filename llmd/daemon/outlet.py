"""A response that other threads than its connection's can write to."""

from __future__ import annotations

import contextlib
from typing import Any

from waitress.channel import ClientDisconnected
from waitress.task import WSGITask

from llmd.api.stream import OUTLET


class Task(WSGITask):
    """A request whose environment has the way to its client."""

    def get_environment(self) -> dict[str, Any]:
        """Return the environment of the request."""
        environ: dict[str, Any] = super().get_environment()
        environ[OUTLET] = ClientOutlet(self)
        return environ

    def service(self) -> None:
        """Answer the request."""
        try:
            super().service()
        finally:
            # Its outlet names this task: only the garbage collector would free the two.
            self.environ = None


class ClientOutlet:
    """The way to a client, open once the head of the response is sent."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def is_ready(self) -> bool:
        """Tell whether the client is there and has taken all that it was sent so far.

        To wait for one that does not read is for the thread of its connection alone.
        """
        channel = self._task.channel
        return self._task.wrote_header and channel.connected and not channel.total_outbufs_len

    def write(self, events: bytes) -> None:
        """Send as much as the system takes at once; waitress's main loop sends the rest."""
        # The thread of the connection finds out by itself that the client has gone.
        with contextlib.suppress(ClientDisconnected):
            self._task.write(events)

"""What the daemon and systemd say to each other: sd_notify(3), the watchdog, sockets handed over.

Everywhere else than under systemd all of it does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

_FIRST_SOCKET = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


class Systemd:
    """The manager that started this process, if one did."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take what is meant for this process out of its environment: no child must answer."""
        address = environ.pop("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of the abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = self._own(environ, "WATCHDOG_PID", "WATCHDOG_USEC") / 1e6
        """How soon systemd must hear of each proof of life; 0: it does not wait for any."""
        num_sockets = self._own(environ, "LISTEN_PID", "LISTEN_FDS")
        environ.pop("LISTEN_FDNAMES", None)
        self._descriptors = range(_FIRST_SOCKET, _FIRST_SOCKET + num_sockets)

    @staticmethod
    def _own(environ: MutableMapping[str, str], of: str, name: str) -> int:
        """Return a number that is for this process, else 0."""
        pid, value = environ.pop(of, ""), environ.pop(name, "")
        is_ours = pid in {"", str(os.getpid())}
        return int(value) if is_ours and value.isascii() and value.isdigit() else 0

    def sockets(self) -> list[socket.socket]:
        """Return the listening sockets of llmd.socket, none without it; once."""
        descriptors, self._descriptors = self._descriptors, range(0)
        taken = []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            taken.append(socket.socket(fileno=descriptor))
        return taken

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``. A manager that does not listen is no error."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", lines[0], error.strerror)


def extend(seconds: float) -> str:
    """Return the assignment that asks for so much more time to start or to stop."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"

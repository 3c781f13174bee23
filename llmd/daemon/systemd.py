"""The interface to systemd: sd_notify(3), the watchdog and socket activation.

Without systemd all of it does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

_FIRST_SOCKET = 3
"""The first descriptor that systemd passes: SD_LISTEN_FDS_START of sd_listen_fds(3)."""


class Systemd:
    """The systemd that started this process, if any."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take the variables of systemd out of `environ`, so that no child process uses them."""
        address = environ.pop("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of the abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = self._take(environ, "WATCHDOG_PID", "WATCHDOG_USEC") / 1e6
        """Seconds within which systemd expects each watchdog message, or 0 if it expects none."""
        num_sockets = self._take(environ, "LISTEN_PID", "LISTEN_FDS")
        environ.pop("LISTEN_FDNAMES", None)
        self._descriptors = range(_FIRST_SOCKET, _FIRST_SOCKET + num_sockets)

    @staticmethod
    def _take(environ: MutableMapping[str, str], pid_name: str, name: str) -> int:
        """Remove both variables. Return the number in `name` if it is for this process, else 0."""
        pid, value = environ.pop(pid_name, ""), environ.pop(name, "")
        is_ours = pid in {"", str(os.getpid())}
        return int(value) if is_ours and value.isascii() and value.isdigit() else 0

    def sockets(self) -> list[socket.socket]:
        """Return the listening sockets of llmd.socket, if any. Further calls return none."""
        descriptors, self._descriptors = self._descriptors, range(0)
        taken = []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            taken.append(socket.socket(fileno=descriptor))
        return taken

    def notify(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``. Log a warning if systemd cannot be reached."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("cannot send %s to systemd: %s", lines[0], error.strerror)


def extend(seconds: float) -> str:
    """Return the assignment that requests `seconds` more to start or to stop."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"

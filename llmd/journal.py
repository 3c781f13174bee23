"""The native protocol of systemd's journal: a message with fields to search by.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")


class Journal:
    """Send entries to the journal of this machine."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, fields: dict[str, str]) -> bool:
        """Send an entry; False when it was not taken: no journal, a busy one, or too much text."""
        try:
            self._socket.sendto(encode(fields), socket.MSG_DONTWAIT, self._path)
        except OSError:
            return False
        return True


def encode(fields: dict[str, str]) -> bytes:
    """Return an entry's bytes. A value of several lines is written with its length before it."""
    parts = []
    for name, value in fields.items():
        raw = value.encode("utf-8", "backslashreplace")
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)

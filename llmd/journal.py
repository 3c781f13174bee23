"""Send messages with searchable fields to systemd's journal, by its native protocol.

See https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")


class Journal:
    """A socket through which entries are sent to the journal of this machine."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, fields: dict[str, str]) -> bool:
        """Send an entry. Return False if the journal is absent or busy, or the entry too long."""
        try:
            self._socket.sendto(encode(fields), socket.MSG_DONTWAIT, self._path)
        except OSError:
            return False
        return True


def encode(fields: dict[str, str]) -> bytes:
    """Return the bytes of an entry. A value of several lines is preceded by its length."""
    parts = []
    for name, value in fields.items():
        raw = value.encode("utf-8", "backslashreplace")
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)

"""Send and receive frames: a length (4 bytes, big-endian) and that many bytes of msgpack.

A frame from the daemon holds one command. A frame from the worker holds the list of all events
of a step.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from llmd.codecs import Codec
from llmd.engine.protocol.commands import Command
from llmd.engine.protocol.events import Event

_LENGTH = struct.Struct(">I")

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Far more than any valid frame: a larger length means that the stream is corrupt."""

_encoder = msgspec.msgpack.Encoder()
_commands: Codec[Command] = Codec(Command)
_events: Codec[list[Event]] = Codec(list[Event])


def send_command(sock: socket.socket, command: Command) -> None:
    """Send one command. Raise OSError if the worker has ended."""
    _send(sock, _encoder.encode(command))


def send_events(sock: socket.socket, events: list[Event]) -> None:
    """Send the events of a step. Raise OSError if the daemon has ended."""
    _send(sock, _encoder.encode(events))


def receive_command(sock: socket.socket) -> Command | None:
    """Wait for a command and return it. Return None if the daemon has ended."""
    frame = _receive(sock)
    return None if frame is None else _commands.decode_msgpack(frame)


def receive_events(sock: socket.socket) -> list[Event] | None:
    """Wait for the events of a step. Return None if the worker has ended or sends garbage."""
    frame = _receive(sock)
    try:
        return None if frame is None else _events.decode_msgpack(frame)
    except msgspec.DecodeError:
        return None


def _send(sock: socket.socket, payload: bytes) -> None:
    sock.sendall(_LENGTH.pack(len(payload)) + payload)


def _receive(sock: socket.socket) -> bytes | None:
    head = _receive_exactly(sock, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        return None
    return _receive_exactly(sock, length)


def _receive_exactly(sock: socket.socket, num_bytes: int) -> bytes | None:
    """Return `num_bytes` bytes; None if the other side closes first, even within a frame."""
    chunks: list[bytes] = []
    while num_bytes:
        try:
            chunk = sock.recv(min(num_bytes, 1 << 20))
        except ConnectionError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        num_bytes -= len(chunk)
    return b"".join(chunks)

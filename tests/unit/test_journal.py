"""Entries in systemd's journal."""

from __future__ import annotations

import io
import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd import journal, logs
from llmd.config import Log


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Provide the socket of a fake journal, to which the log of this process goes."""
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(5)
        made = journal.Journal(path)
        monkeypatch.setattr("llmd.logs.Journal", lambda: made)
        monkeypatch.setattr("llmd.logs._is_journal", lambda _stream: True)
        root = logging.getLogger()
        before = root.handlers[:], root.level
        yield sock
        root.handlers, root.level = before


def entry(listener: socket.socket) -> dict[str, str]:
    """Return the fields of the next entry, whose values have one line each."""
    lines = listener.recv(65536).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_request_is_an_entry_with_searchable_fields(listener: socket.socket) -> None:
    """The message of an entry is the line for people, and the entry has the priority."""
    logs.configure(Log())
    token = logs.request_id.set("r1")
    logs.log_request("POST", "/answer", 200, 0.5, key_id="k1", num_completion_tokens=7)
    logs.request_id.reset(token)
    found = entry(listener)
    assert found["MESSAGE"].startswith("llmd.request: POST /answer 200 500ms key=k1")
    assert found["PRIORITY"] == "6"
    assert found["SYSLOG_IDENTIFIER"] == "llmd"
    assert found["LLMD_REQUEST"] == "r1"
    names = {"LLMD_METHOD": "POST", "LLMD_PATH": "/answer", "LLMD_STATUS": "200"}
    assert found | names | {"LLMD_KEY": "k1", "LLMD_COMPLETION": "7"} == found


def test_a_traceback_is_one_entry_with_the_priority_of_its_message(
    listener: socket.socket,
) -> None:
    """A traceback is part of the entry of its message."""
    logs.configure(Log())
    try:
        int("two\nlines")
    except ValueError:
        logging.getLogger("llmd.x").exception("it failed")
    raw = listener.recv(65536)
    assert raw.startswith(b"MESSAGE\n")
    (length,) = struct.unpack("<Q", raw[8:16])
    message = raw[16 : 16 + length].decode()
    assert message.startswith("llmd.x: it failed\nTraceback")
    assert b"\nPRIORITY=3\n" in raw[16 + length :]


def test_an_entry_that_the_journal_refuses_is_written_as_lines(
    listener: socket.socket, tmp_path: Path
) -> None:
    """Each of the lines begins with its priority, which systemd reads from any output."""
    stream = io.StringIO()
    logs.configure(Log(format="journal"), stream)
    (tmp_path / "journal").unlink()
    logging.getLogger("llmd.x").warning("still there")
    assert stream.getvalue() == "<4>llmd.x: still there\n"

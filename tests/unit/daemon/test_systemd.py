"""The notes to systemd, and what it hands over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd.daemon.systemd import Systemd, extend


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Give the socket on which a manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_what_is_told_arrives_as_assignments(manager: socket.socket) -> None:
    """One datagram, a line each."""
    Systemd({"NOTIFY_SOCKET": manager.getsockname()}).tell("READY=1", "STATUS=serving")
    assert manager.recv(1024) == b"READY=1\nSTATUS=serving"


def test_an_abstract_address_begins_with_nul() -> None:
    """Which the environment spells as @."""
    name = f"llmd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        Systemd({"NOTIFY_SOCKET": f"@{name}"}).tell("READY=1")
        assert sock.recv(1024) == b"READY=1"


def test_without_a_manager_nothing_is_told_and_nothing_waited_for() -> None:
    """As in a terminal."""
    systemd = Systemd({})
    systemd.tell("READY=1")
    assert systemd.watchdog_s == 0
    assert systemd.sockets() == []


def test_a_manager_that_is_gone_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the end of the daemon."""
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")
    assert "READY=1" in caplog.text


def test_the_environment_of_children_has_none_of_it() -> None:
    """A worker must not be taken for the daemon."""
    environ = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_FDS": "0",
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDNAMES": "",
        "PATH": "/bin",
    }
    assert Systemd(environ).watchdog_s == 30
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "LISTEN_FDS": "2", "LISTEN_PID": "1"},
        {"WATCHDOG_USEC": "soon", "LISTEN_FDS": "-1"},
    ],
)
def test_what_is_meant_for_another_process_or_makes_no_sense_is_ignored(
    environ: dict[str, str],
) -> None:
    """A shell in between passes everything on."""
    systemd = Systemd(environ)
    assert systemd.watchdog_s == 0
    assert systemd.sockets() == []


def test_a_socket_that_is_handed_over_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens already; no child of the daemon inherits it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        monkeypatch.setattr("llmd.daemon.systemd._FIRST_SOCKET", listener.fileno())
        systemd = Systemd({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
        address = listener.getsockname()
        [taken] = systemd.sockets()
        listener.detach()
        with taken:
            assert taken.getsockname() == address
            assert not taken.get_inheritable()
        assert systemd.sockets() == []


def test_more_time_is_asked_for_in_microseconds() -> None:
    """As sd_notify(3) has it."""
    assert extend(1.5) == "EXTEND_TIMEOUT_USEC=1500000"

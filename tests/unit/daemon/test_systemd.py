"""Messages to systemd, and the variables and sockets that it passes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd.daemon.systemd import Systemd, extend


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Provide the socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_assignments_arrive_in_one_datagram(manager: socket.socket) -> None:
    """Several assignments are sent as the lines of one datagram."""
    Systemd({"NOTIFY_SOCKET": manager.getsockname()}).notify("READY=1", "STATUS=serving")
    assert manager.recv(1024) == b"READY=1\nSTATUS=serving"


def test_an_abstract_address_can_be_used() -> None:
    """The leading @ of an address stands for the NUL of the abstract namespace."""
    name = f"llmd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(5)
        Systemd({"NOTIFY_SOCKET": f"@{name}"}).notify("READY=1")
        assert sock.recv(1024) == b"READY=1"


def test_without_systemd_nothing_is_sent_and_nothing_expected() -> None:
    """In a terminal there is no watchdog, no socket, and nobody to notify."""
    systemd = Systemd({})
    systemd.notify("READY=1")
    assert systemd.watchdog_s == 0
    assert systemd.sockets() == []


def test_a_missing_socket_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A message that cannot be sent is logged and does not end the daemon."""
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify("READY=1")
    assert "READY=1" in caplog.text


def test_child_processes_do_not_inherit_the_variables() -> None:
    """The variables of systemd are removed, so that a worker is not taken for the daemon."""
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
def test_variables_for_another_process_and_malformed_ones_are_ignored(
    environ: dict[str, str],
) -> None:
    """Variables with another process id, which a shell would pass on, have no effect."""
    systemd = Systemd(environ)
    assert systemd.watchdog_s == 0
    assert systemd.sockets() == []


def test_a_passed_socket_is_returned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passed socket is listening already, and no child process inherits it."""
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


def test_more_time_is_requested_in_microseconds() -> None:
    """A request for more time is in microseconds, as sd_notify(3) says."""
    assert extend(1.5) == "EXTEND_TIMEOUT_USEC=1500000"

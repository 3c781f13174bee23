"""Kills, hangs, upgrades, downgrades and removal of the installed package."""

from __future__ import annotations

import json
import sys
import threading
import time

import pytest

from tests.deb.machine import Machine
from tests.deb.next import FIRST

SESSIONS = 100


@pytest.fixture(autouse=True)
def fresh(installed: Machine) -> None:
    """Reset the unit's count of starts, which systemd limits."""
    installed.run("systemctl reset-failed llmd", status=None)


def ask(machine: Machine, session: str) -> None:
    """Add one turn to a session."""
    body = {"prompt": "Hi", "session_id": session, "max_tokens": 2}
    assert "result" in machine.ask("/answer", body, key=machine.admin_key())


def sessions(machine: Machine) -> set[str]:
    """Return the ids of all stored sessions, from the command line."""
    lines = machine.run("llmd session export").splitlines()
    return {str(json.loads(line)["id"]) for line in lines}


def main_pid(machine: Machine) -> str:
    """Return the daemon's process id."""
    return machine.run("systemctl show -P MainPID llmd").strip()


def wait_for_another(machine: Machine, pid: str) -> None:
    """Wait until systemd has restarted the daemon, and it is ready."""
    for _ in range(300):
        shown = machine.run("systemctl show -P MainPID -P ActiveState llmd").split()
        if "active" in shown and not {"0", pid} & set(shown):
            return
        time.sleep(0.2)
    raise AssertionError("the daemon was not restarted")


def test_a_killed_daemon_is_restarted_and_has_lost_nothing(installed: Machine) -> None:
    """A killed daemon is restarted by systemd, and still has all sessions."""
    ask(installed, "before-the-kill")
    pid = main_pid(installed)
    installed.run(f"kill -9 {pid}")
    wait_for_another(installed, pid)
    ask(installed, "after-the-kill")
    assert {"before-the-kill", "after-the-kill"} <= sessions(installed)


def test_a_hanging_daemon_is_killed_by_the_watchdog(installed: Machine) -> None:
    """The watchdog restarts a daemon that hangs, but not one that is idle."""
    installed.run(
        "mkdir -p /run/systemd/system/llmd.service.d &&"
        " printf '[Service]\\nWatchdogSec=5\\n' > /run/systemd/system/llmd.service.d/test.conf &&"
        " systemctl daemon-reload && systemctl restart llmd"
    )
    pid = main_pid(installed)
    time.sleep(11)
    assert main_pid(installed) == pid
    installed.run(f"kill -STOP {pid}")
    wait_for_another(installed, pid)
    assert "Watchdog timeout" in installed.run("journalctl -u llmd -q --no-pager -o cat")
    installed.run("rm /run/systemd/system/llmd.service.d/test.conf; systemctl daemon-reload")
    installed.run("systemctl restart llmd")


def test_an_upgrade_under_load_loses_nothing(installed: Machine) -> None:
    """An upgrade keeps sessions, key and edited configuration, and copies the database."""
    key = installed.admin_key()
    for number in range(SESSIONS):
        ask(installed, f"s{number}")
    installed.run("printf '\\n# edited\\n' >> /etc/llmd/llmd.toml")
    down: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        url = f"http://{installed.lan}:5000/livez"
        gone_at = None
        while not ended.is_set():
            code = installed.from_lan(
                f"curl -s -m 2 -o /dev/null -w '%{{http_code}}' {url}", status=None
            )
            if code != "200" and gone_at is None:
                gone_at = time.monotonic()
            elif code == "200" and gone_at is not None:
                down.append(time.monotonic() - gone_at)
                gone_at = None
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        installed.run(
            "apt-get install -y -o Dpkg::Options::=--force-confold /opt/debs/next.deb",
            timeout_s=300,
        )
    finally:
        ended.set()
        watcher.join()
    sys.stdout.write(f"{installed.suite}: {sum(down):.1f} s of downtime\n")
    assert installed.run("llmd db revision").strip() == str(FIRST)
    assert {f"s{number}" for number in range(SESSIONS)} <= sessions(installed)
    assert "# edited" in installed.run("cat /etc/llmd/llmd.toml")
    assert installed.run("ls /var/lib/llmd/llmd.db.*.bak")
    assert installed.admin_key() == key
    ask(installed, "after-the-upgrade")
    assert installed.journal("-p warning -b --since -2min").count("Traceback") == 0


def test_a_downgrade_is_refused_and_the_newer_version_runs_on(installed: Machine) -> None:
    """The message of a refused downgrade says how to go back anyway."""
    output = installed.run("apt-get install -y --allow-downgrades /opt/debs/llmd.deb", status=100)
    assert "not downgraded" in output
    assert "llmd db restore" in output
    assert installed.run("dpkg-query -W -f '${Version} ${db:Status-Status}' llmd") == (
        "0.2.0-1 installed"
    )
    assert installed.run("systemctl is-active llmd").strip() == "active"
    ask(installed, "after-the-downgrade")


def test_a_failed_migration_leaves_the_database_to_the_previous_version(
    installed: Machine,
) -> None:
    """After a failed migration the previous version can be installed, and has all sessions."""
    output = installed.run("apt-get install -y /opt/debs/broken.deb", status=100)
    assert "could not be upgraded" in output
    assert "failed and changed nothing" in output
    assert installed.run("systemctl is-active llmd", status=3).strip() != "active"
    installed.run("apt-get install -y --allow-downgrades /opt/debs/next.deb")
    ask(installed, "after-the-failure")
    assert "s0" in sessions(installed)


def test_removal_keeps_the_data_and_purge_deletes_it(installed: Machine) -> None:
    """Data survives a removal and a new installation, but not a purge."""
    ask(installed, "before-the-removal")
    installed.run("apt-get remove -y llmd")
    # Another status in each release: there is no such unit.
    assert installed.run("systemctl is-active llmd", status=None).strip() == "inactive"
    installed.run("test -e /var/lib/llmd/llmd.db && test -e /etc/llmd/llmd.toml")
    installed.run("test ! -e /usr/lib/llmd")
    installed.run("apt-get install -y /opt/debs/next.deb")
    assert "before-the-removal" in sessions(installed)
    ask(installed, "after-the-removal")
    installed.run("apt-get purge -y llmd")
    installed.run("test ! -e /var/lib/llmd && test ! -e /etc/llmd && test ! -e /var/cache/llmd")
    installed.run("apt-get install -y /opt/debs/llmd.deb")
    ask(installed, "new")
    assert sessions(installed) == {"new"}

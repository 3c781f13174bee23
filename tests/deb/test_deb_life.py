"""What the machine goes through: kills, hangs, upgrades, downgrades, removal."""

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
    """Let no start of the tests before count for the limit of starts."""
    installed.run("systemctl reset-failed llmd", status=None)


def ask(machine: Machine, session: str) -> None:
    """Have one turn of a session."""
    body = {"prompt": "Hi", "session_id": session, "max_tokens": 2}
    assert "result" in machine.ask("/answer", body, key=machine.admin_key())


def sessions(machine: Machine) -> set[str]:
    """Return the sessions in the store, by the command line."""
    lines = machine.run("llmd session export").splitlines()
    return {str(json.loads(line)["id"]) for line in lines}


def main_pid(machine: Machine) -> str:
    """Return the daemon's process."""
    return machine.run("systemctl show -P MainPID llmd").strip()


def wait_for_another(machine: Machine, pid: str) -> None:
    """Wait until systemd has started the daemon again, and it serves."""
    for _ in range(300):
        shown = machine.run("systemctl show -P MainPID -P ActiveState llmd").split()
        if "active" in shown and not {"0", pid} & set(shown):
            return
        time.sleep(0.2)
    raise AssertionError("the daemon was not started again")


def test_a_killed_daemon_is_back_with_all_it_had(installed: Machine) -> None:
    """By systemd, at once."""
    ask(installed, "before-the-kill")
    pid = main_pid(installed)
    installed.run(f"kill -9 {pid}")
    wait_for_another(installed, pid)
    ask(installed, "after-the-kill")
    assert {"before-the-kill", "after-the-kill"} <= sessions(installed)


def test_a_daemon_that_hangs_is_ended_by_the_watchdog(installed: Machine) -> None:
    """With a short time for it, for the test."""
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
    """Sessions, an edited conffile, a migration with a copy before it; downtime is told."""
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
    sys.stdout.write(f"{installed.suite}: no answer for {sum(down):.1f} s\n")
    assert installed.run("llmd db revision").strip() == str(FIRST)
    assert {f"s{number}" for number in range(SESSIONS)} <= sessions(installed)
    assert "# edited" in installed.run("cat /etc/llmd/llmd.toml")
    assert installed.run("ls /var/lib/llmd/llmd.db.*.bak")
    assert installed.admin_key() == key
    ask(installed, "after-the-upgrade")
    assert installed.journal("-p warning -b --since -2min").count("Traceback") == 0


def test_a_downgrade_is_refused_and_the_newer_one_goes_on(installed: Machine) -> None:
    """The message says how to go back all the same."""
    said = installed.run("apt-get install -y --allow-downgrades /opt/debs/llmd.deb", status=100)
    assert "not downgraded" in said
    assert "llmd db restore" in said
    assert installed.run("dpkg-query -W -f '${Version} ${db:Status-Status}' llmd") == (
        "0.2.0-1 installed"
    )
    assert installed.run("systemctl is-active llmd").strip() == "active"
    ask(installed, "after-the-downgrade")


def test_a_migration_that_fails_leaves_the_database_to_the_version_before(
    installed: Machine,
) -> None:
    """The package says what to do; the version before is installed again and serves."""
    said = installed.run("apt-get install -y /opt/debs/broken.deb", status=100)
    assert "could not be upgraded" in said
    assert "failed and changed nothing" in said
    assert installed.run("systemctl is-active llmd", status=3).strip() != "active"
    installed.run("apt-get install -y --allow-downgrades /opt/debs/next.deb")
    ask(installed, "after-the-failure")
    assert "s0" in sessions(installed)


def test_removal_keeps_what_is_the_users_and_purge_takes_it(installed: Machine) -> None:
    """Installed again in between, all is there."""
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

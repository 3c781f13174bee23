"""Run instead of the daemon, with the settings of its unit; print what should be forbidden."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    """Raise OSError if a system call was refused."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def write(path: str) -> Callable[[], object]:
    """Return a function that writes to `path`."""
    return lambda: Path(path).write_text("x")


TRIES: dict[str, Callable[[], object]] = {
    **{
        f"write {folder}": write(f"{folder}/probe")
        for folder in ("/", "/etc", "/etc/llmd", "/usr/lib/llmd", "/usr/share/llmd", "/root")
    },
    **{f"write {folder}": write(f"{folder}/probe") for folder in ("/var/lib", "/run", "/home")},
    "read the admin's key": lambda: Path("/etc/llmd/admin.key").read_text(),
    "read the credentials of root": lambda: list(Path("/etc/llmd/credentials").iterdir()),
    "read shadow": lambda: Path("/etc/shadow").read_text(),
    "read another user's file": lambda: Path("/srv/other").read_text(),
    "see other processes": lambda: Path("/proc/1/cmdline").read_text(),
    "become root": lambda: os.setuid(0),
    "trace": lambda: check(libc.ptrace(16, os.getppid(), 0, 0)),
    "mount": lambda: check(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "make a namespace": lambda: check(libc.unshare(0x10000000)),
    "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "set the host name": lambda: socket.sethostname("probe"),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "map memory to write and run": lambda: check(
        -1 if libc.mmap(None, 4096, 7, 0x22, -1, 0) in (-1, 0xFFFFFFFF) else 0
    ),
    "change the nice value up": lambda: os.nice(-5),
}
MUST = {
    "write /var/lib/llmd": write("/var/lib/llmd/probe"),
    "write /var/cache/llmd": write("/var/cache/llmd/probe"),
    "read the configuration": lambda: Path("/etc/llmd/llmd.toml").read_text(),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)).close(),
}

if __name__ == "__main__":
    for name, attempt in TRIES.items():
        try:
            attempt()
        except OSError:
            continue
        sys.stdout.write(f"probe could {name}\n")
    for name, attempt in MUST.items():
        try:
            attempt()
        except OSError as error:
            sys.stdout.write(f"probe could not {name}: {error}\n")
    sys.stdout.write("probe is done\n")

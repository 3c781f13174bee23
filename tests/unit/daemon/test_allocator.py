"""Freed memory goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys

CHECK_KEYS = """
import sys, threading
from pathlib import Path
from llmd.auth.secret import Hasher
from llmd.daemon import allocator

def used_bytes():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])

if sys.argv[1] == "returned":
    allocator.return_freed_memory()
hasher = Hasher("small", wait_s=600)
hashed = hasher.hash("a key")
before = used_bytes()
done = threading.Barrier(9)
def check():
    assert hasher.verify(hashed, "a key")
    done.wait()
for _ in range(8):
    threading.Thread(target=check, daemon=True).start()
done.wait()
print(used_bytes() - before)
"""
"""Check a key in each of eight threads, and print by how many bytes the process has grown."""


def _growth_bytes(how: str) -> int:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHECK_KEYS, how]
    return int(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)


def test_memory_of_key_checks_is_given_back() -> None:
    """Checks of keys in many threads leave less memory behind than one check needs."""
    assert _growth_bytes("returned") < 10_000_000


def test_memory_of_key_checks_would_stay_otherwise() -> None:
    """By default, each thread keeps the memory of its check: the settings are needed."""
    assert _growth_bytes("kept") > 60_000_000

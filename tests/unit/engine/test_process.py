from __future__ import annotations

import gc
import sys
import warnings
from pathlib import Path

import pytest

from llmd.engine.process import WorkerProcess, WorkerSettings
from tests.support.supervisors import LIMIT_S, is_alive


def _process(program: str, kill_after_s: float = LIMIT_S) -> WorkerProcess:
    return WorkerProcess(
        WorkerSettings(
            command=(sys.executable, "-I", "-S", "-c", program), kill_after_s=kill_after_s
        )
    )


def test_process_has_the_other_end_of_the_socket() -> None:
    """The last argument is a descriptor that only the parent's socket is connected to."""
    process = _process("import os, sys; os.write(int(sys.argv[1]), b'here')")
    process.sock.settimeout(LIMIT_S)
    assert process.sock.recv(4) == b"here"
    assert process.sock.recv(1) == b""
    assert process.close() == "exit code 0"


def test_process_has_large_pages_unless_the_admin_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large pages are requested before the tunables of the admin, since glibc takes the last."""
    program = "import os, sys; os.write(int(sys.argv[1]), os.environb[b'GLIBC_TUNABLES'])"
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    own = _process(program)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    given = _process(program)
    assert [process.sock.recv(200) for process in (own, given)] == [
        b"glibc.malloc.hugetlb=1",
        b"glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0",
    ]
    for process in (own, given):
        process.close()


def test_end_of_a_process_is_described_with_its_last_output() -> None:
    """`close` returns the exit code with the last lines of standard error."""
    process = _process(
        r"import os; os.write(2, b''.join(b'%d\n' % n for n in range(9)) + b'\n\xff'); os._exit(3)"
    )
    assert process.close() == "exit code 3; last output: 8 / �"


def test_process_that_a_signal_ended_is_described_by_its_name() -> None:
    """`close` returns the name of a signal, and a second kill is harmless."""
    process = _process("import sys; sys.stdin.close(); import signal; signal.pause()")
    process.kill()
    assert process.close() == "SIGKILL"
    process.kill()
    assert not is_alive(process.pid)


def test_process_that_does_not_end_by_itself_is_killed() -> None:
    """A worker that ignores its closed socket is killed after a while."""
    process = _process("import signal\nwhile True: signal.pause()", kill_after_s=0.05)
    assert process.close() == "SIGKILL"
    assert not is_alive(process.pid)


def test_hung_up_process_reads_its_end_of_file() -> None:
    """`hang_up` ends a process that reads its socket, before the descriptor is closed."""
    process = _process("import os, sys; os._exit(len(os.read(int(sys.argv[1]), 1)))")
    process.hang_up()
    process.hang_up()
    assert process.close() == "exit code 0"


def test_process_runs_in_the_root_folder_and_imports_nothing_from_there() -> None:
    """A worker runs in the root folder and imports nothing from there."""
    process = WorkerProcess(
        WorkerSettings(
            command=(
                sys.executable,
                "-S",
                "-c",
                "import os, sys; os._exit(not (os.getcwd() == '/' and sys.flags.safe_path))",
            )
        )
    )
    assert process.close() == "exit code 0"


def test_process_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    """If the program cannot be started, both ends of the socket are closed."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(OSError, match="no-such-program") as caught:
            WorkerProcess(WorkerSettings(command=(str(tmp_path / "no-such-program"),)))
        del caught
        gc.collect()
    assert not any("unclosed <socket" in str(warning.message) for warning in warned)

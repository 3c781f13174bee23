"""KV states of idle sessions in files, so that they are warm after a restart too.

A file is named for nothing that was said, is for the owner's eyes alone (mode 0600), and is
written beside and renamed: half a file never has its name. Whatever is wrong with one, it is a
miss, and the file is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llmd.worker.backend import StateBytes
from llmd.worker.kv import state_file
from llmd.worker.kv.prefix import common_prefix

MAX_PENDING_BYTES = 256 * 1024 * 1024
"""Of states that wait to be written: more would take memory that others need."""

_SUFFIX = ".kv"


@dataclass(eq=False)
class Entry:
    """A state on the disk, or on its way there."""

    owner: str
    session: str
    tokens: list[int]
    path: Path
    num_bytes: int
    data: StateBytes | None = None
    """The state, until it is written."""
    is_gone: bool = False


class DiskStates:
    """States of one model under `folder`, which other models' files may share.

    Not thread-safe but for its own writer. At most `max_bytes` in all files; the ones longest
    unused go first. `fingerprint` tells models, builds and layouts of the KV memory apart.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        max_bytes: int,
        warn: Callable[[str], None],
    ) -> None:
        self._folder = folder / fingerprint
        self._max_bytes = max_bytes
        self._warn = warn
        self._entries: list[Entry] = []
        """The ones longest unused first."""
        self._num_pending_bytes = 0
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_usable = self._open()
        self._writer = threading.Thread(target=self._write_all, name="states", daemon=True)
        self._writer.start()

    @property
    def entries(self) -> list[Entry]:
        """All states that can be had, the ones longest unused first."""
        return list(self._entries)

    def add(self, owner: str, session: str, tokens: list[int], data: StateBytes) -> None:
        """Keep a state, in place of those that it continues. It is written by and by."""
        too_much = self._num_pending_bytes + len(data) > MAX_PENDING_BYTES
        if not self._is_usable or len(data) > self._max_bytes or too_much:
            return
        for old in self.entries:
            if old.owner == owner and tokens[: len(old.tokens)] == old.tokens:
                self.remove(old)
        path = self._folder / f"{os.urandom(16).hex()}{_SUFFIX}"
        entry = Entry(owner, session, list(tokens), path, len(data), data)
        self._entries.append(entry)
        self._num_pending_bytes += len(data)
        self._queue.put(entry)
        self._make_room()

    def holds(self, owner: str, tokens: list[int]) -> bool:
        """Tell whether these very tokens, or more behind them, are kept."""
        return any(
            entry.owner == owner and entry.tokens[: len(tokens)] == tokens
            for entry in self._entries
        )

    def find(self, owner: str, tokens: list[int]) -> tuple[int, Entry | None]:
        """Return the owner's state that shares most of `tokens`: (how many, state)."""
        best, num_shared = None, 0
        for entry in self._entries:
            if entry.owner == owner:
                num = common_prefix(entry.tokens, tokens)
                if num > num_shared:
                    best, num_shared = entry, num
        return num_shared, best

    def load(self, entry: Entry) -> StateBytes | None:
        """Return a state's bytes; None, and the file is deleted, when there is anything wrong."""
        data = entry.data
        if data is None:
            try:
                data = state_file.read(entry.path)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                self._warn(f"a kept state cannot be used: {error}")
                self.remove(entry)
                return None
        self._entries.remove(entry)
        self._entries.append(entry)
        with contextlib.suppress(OSError):
            os.utime(entry.path)
        return data

    def remove(self, entry: Entry) -> None:
        """Drop a state with its file. Idempotent."""
        if entry in self._entries:
            self._entries.remove(entry)
        with self._lock:
            entry.is_gone = True
            with contextlib.suppress(OSError):
                entry.path.unlink(missing_ok=True)

    def forget(self, owner: str, session: str | None) -> None:
        """Drop the states of an owner's session, or of all its sessions."""
        for entry in self.entries:
            if entry.owner == owner and session in (None, entry.session):
                self.remove(entry)

    def close(self) -> None:
        """Wait until all is written."""
        self._queue.put(None)
        self._writer.join()

    def _open(self) -> bool:
        """Make the folder and read what is in it; False when there can be none."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        except OSError as error:
            self._warn(f"no states are kept on the disk: {error}")
            return False
        for path in paths:
            try:
                header = _read_header(path)
            except (OSError, ValueError, msgspec.MsgspecError):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            self._entries.append(
                Entry(header.owner, header.session, header.tokens, path, header.num_bytes)
            )
        self._make_room()
        return True

    def _make_room(self) -> None:
        """Delete the files longest unused, other models' before one's own."""
        excess = sum(entry.num_bytes for entry in self._entries) - self._max_bytes
        others = list(self._others())
        excess += sum(size for _, _, size in others)
        for _, path, size in sorted(others):
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            excess -= size
        for entry in self.entries:
            if excess <= 0:
                return
            self.remove(entry)
            excess -= entry.num_bytes

    def _others(self) -> Iterator[tuple[float, Path, int]]:
        """Yield the files of other models: (time of last use, path, bytes)."""
        for folder in self._folder.parent.iterdir():
            if folder != self._folder:
                for path in folder.glob(f"*{_SUFFIX}"):
                    with contextlib.suppress(OSError):
                        stat = path.stat()
                        yield stat.st_mtime, path, stat.st_size

    def _write_all(self) -> None:
        while (entry := self._queue.get()) is not None:
            data = entry.data
            if data is None:
                continue
            try:
                if not entry.is_gone:
                    self._write(entry, data)
            except OSError as error:
                self._warn(f"a state cannot be kept on the disk: {error}")
                entry.is_gone = True
            self._num_pending_bytes -= len(data)
            entry.data = None

    def _write(self, entry: Entry, data: StateBytes) -> None:
        beside = entry.path.with_suffix(".new")
        try:
            state_file.write(beside, entry.owner, entry.session, entry.tokens, data)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        with self._lock:
            # Forgotten while it was written: it must not come back.
            if entry.is_gone:
                beside.unlink()
            else:
                beside.rename(entry.path)


def _read_header(path: Path) -> state_file.Header:
    if path.suffix != _SUFFIX:
        raise ValueError("half a file")
    return state_file.read_header(path)


def fingerprint_of(model: Path, *words: str) -> str:
    """Return a name for a model file and all that its states depend on.

    By its size and samples of its content: gigabytes would take long to read at each start.
    """
    digest = hashlib.sha256("\n".join(words).encode())
    size = model.stat().st_size
    digest.update(str(size).encode())
    with model.open("rb") as file:
        for number in range(_NUM_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * number // (_NUM_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]


_NUM_SAMPLES = 17
_SAMPLE_BYTES = 65_536

"""KV states of idle conversations in files, so that they are warm after a restart too.

A file has a random name and mode 0600. It is written under another name and then renamed, so
that no incomplete file has its final name. A file with anything wrong in it counts as a miss and
is deleted.
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

from llmd.worker.kv import state_file
from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.kv.reuse_rule import NO_REUSE, Reuse, ReuseRule
from llmd.worker.kv.saved_state import SavedState

MAX_PENDING_BYTES = 256 * 1024 * 1024
"""A state is dropped if more than this waits to be written: it would take memory from others."""

_SUFFIX = ".kv"


@dataclass(eq=False)
class DiskState:
    """A KV state on the disk, or waiting to be written there."""

    conversation: Conversation
    tokens: list[int]
    path: Path
    num_bytes: int
    first_cell: int
    checkpoints: list[int]
    """The numbers of tokens that the state has checkpoints of."""
    saved: SavedState | None = None
    """The state itself, until it is written."""
    is_removed: bool = False

    def reuse(self, rule: ReuseRule, tokens: list[int]) -> Reuse:
        """Return how much of this state serves a prompt."""
        num_shared = common_prefix(self.tokens, tokens)
        return rule.apply(num_shared, len(self.tokens), self.first_cell, self.checkpoints)


class DiskStates:
    """The states of one model in a sub-folder of `folder`, where other models have theirs.

    All states together, without the headers of their files, take at most `max_bytes`. The least
    recently used are deleted first. `fingerprint` distinguishes models, builds and layouts of
    the KV memory.

    Not thread-safe, except towards its own writer thread.
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
        self._states: list[DiskState] = []
        """All states, the least recently used first."""
        self._num_pending_bytes = 0
        self._queue: queue.SimpleQueue[DiskState | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_usable = self._open()
        self._writer = threading.Thread(target=self._write_all, name="states", daemon=True)
        self._writer.start()

    @property
    def states(self) -> list[DiskState]:
        """All states that can be read, the least recently used first."""
        return list(self._states)

    def add(self, conversation: Conversation, tokens: list[int], saved: SavedState) -> bool:
        """Keep a state in place of those it continues; the writer thread writes it later.

        Return False, and keep nothing, if the state is too large, too much waits to be written, or
        the folder cannot be used.
        """
        num_bytes = saved.num_bytes
        too_much = self._num_pending_bytes + num_bytes > MAX_PENDING_BYTES
        if not self._is_usable or num_bytes > self._max_bytes or too_much:
            return False
        for old in self.states:
            is_own = old.conversation.owner == conversation.owner
            if is_own and tokens[: len(old.tokens)] == old.tokens:
                self.remove(old)
        path = self._folder / f"{os.urandom(16).hex()}{_SUFFIX}"
        state = DiskState(
            conversation,
            list(tokens),
            path,
            num_bytes,
            saved.first_cell,
            [one.num_tokens for one in saved.checkpoints],
            saved,
        )
        self._states.append(state)
        with self._lock:
            self._num_pending_bytes += num_bytes
        self._queue.put(state)
        self._make_room()
        return True

    def holds(self, owner: str, tokens: list[int]) -> bool:
        """Return whether a state of the owner holds all these tokens."""
        return any(
            state.conversation.owner == owner and state.tokens[: len(tokens)] == tokens
            for state in self._states
        )

    def find(
        self, owner: str, tokens: list[int], rule: ReuseRule
    ) -> tuple[Reuse, DiskState | None]:
        """Return the owner's state that serves most of `tokens`, and how much of them."""
        best, most = None, NO_REUSE
        for state in self._states:
            if state.conversation.owner == owner:
                reuse = state.reuse(rule, tokens)
                if reuse.num_tokens > most.num_tokens:
                    best, most = state, reuse
        return most, best

    def load(self, state: DiskState) -> SavedState | None:
        """Read a state; delete the file and return None if anything is wrong with it.

        The state becomes the most recently used.
        """
        saved = state.saved
        if saved is None:
            try:
                saved = state_file.read(state.path)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                self._warn(f"a kept state cannot be used: {error}")
                self.remove(state)
                return None
        self._states.remove(state)
        self._states.append(state)
        with contextlib.suppress(OSError):
            os.utime(state.path)
        return saved

    def remove(self, state: DiskState) -> None:
        """Drop a state and delete its file. Idempotent."""
        if state in self._states:
            self._states.remove(state)
        with self._lock:
            state.is_removed = True
            with contextlib.suppress(OSError):
                state.path.unlink(missing_ok=True)

    def forget(self, owner: str, session: str | None) -> None:
        """Drop the states of an owner's session, or of all the owner's sessions."""
        for state in self.states:
            if state.conversation.belongs_to(owner, session):
                self.remove(state)

    def close(self) -> None:
        """Wait until all states are written."""
        self._queue.put(None)
        self._writer.join()

    def _open(self) -> bool:
        """Make the folder and read the headers in it; return False if that is impossible."""
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
            self._states.append(
                DiskState(
                    Conversation(header.owner, header.session),
                    header.tokens,
                    path,
                    header.num_bytes,
                    header.first_cell,
                    [part.num_tokens for part in header.parts[1:]],
                )
            )
        self._make_room()
        return True

    def _make_room(self) -> None:
        """Delete the least recently used files, those of other models first."""
        excess = sum(state.num_bytes for state in self._states) - self._max_bytes
        others = list(self._others())
        excess += sum(size for _, _, size in others)
        for _, path, size in sorted(others):
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            excess -= size
        for state in self.states:
            if excess <= 0:
                return
            self.remove(state)
            excess -= state.num_bytes

    def _others(self) -> Iterator[tuple[float, Path, int]]:
        """Yield the files of other models as (time of last use, path, size in bytes)."""
        for path in self._folder.parent.glob(f"*/*{_SUFFIX}"):
            # Another worker may delete its files meanwhile.
            with contextlib.suppress(OSError):
                if path.parent != self._folder:
                    stat = path.stat()
                    yield stat.st_mtime, path, stat.st_size

    def _write_all(self) -> None:
        while (state := self._queue.get()) is not None:
            saved = state.saved
            if saved is None:
                continue
            try:
                if not state.is_removed:
                    self._write(state, saved)
            except OSError as error:
                self._warn(f"a state cannot be kept on the disk: {error}")
                state.is_removed = True
            with self._lock:
                self._num_pending_bytes -= saved.num_bytes
            state.saved = None

    def _write(self, state: DiskState, saved: SavedState) -> None:
        beside = state.path.with_suffix(".new")
        try:
            state_file.write(beside, *state.conversation, state.tokens, saved)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        with self._lock:
            # A state that was forgotten while it was written must not come back.
            if state.is_removed:
                beside.unlink()
            else:
                beside.rename(state.path)


def _read_header(path: Path) -> state_file.Header:
    if path.suffix != _SUFFIX:
        raise ValueError("the file is incomplete")
    return state_file.read_header(path)


def fingerprint_of(model: Path, *words: str) -> str:
    """Return a fingerprint of a model file and of `words`, which its states depend on as well.

    The size and samples of the content are hashed: reading gigabytes would delay every start.
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

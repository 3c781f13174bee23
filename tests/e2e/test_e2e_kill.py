"""Kill the daemon repeatedly under load: acknowledged turns are stored exactly once."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.e2e.client import Client, Refused
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

NUM_KILLS = 20
NUM_WRITERS = 8


class Writer(threading.Thread):
    """Send each prompt once, in one session, and note the acknowledged ones."""

    def __init__(self, client: Client, number: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self.error: BaseException | None = None
        self.stopped = threading.Event()
        self._client = client
        self._number = number

    def run(self) -> None:
        """Send prompts until stopped, whatever happens to the daemon."""
        ask = self._whole if self._number % 2 else self._streamed
        count = 0
        while not self.stopped.is_set() and self.error is None:
            count += 1
            prompt = f"w{self._number} n{count}"
            try:
                if ask(prompt):
                    self.acknowledged.append(prompt)
                else:
                    self.stopped.wait(0.05)
            except OSError:
                self.stopped.wait(0.05)
            except BaseException as error:
                self.error = error

    def _whole(self, prompt: str) -> bool:
        body = {"prompt": prompt, "session_id": self._number, "profile": "bare"}
        reply = self._client.call("POST", "/answer", body)
        assert reply.status in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}, reply
        return reply.status == HTTPStatus.OK

    def _streamed(self, prompt: str) -> bool:
        try:
            with self._client.stream(prompt, session_id=self._number, profile="bare") as stream:
                return any(event.name == "done" for event in stream)
        except Refused as refused:
            if refused.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return False


def _check_store(daemon: Daemon, copy: Path, acknowledged: Counter[str]) -> None:
    """Check the database that a crash left, in a copy: opening the original would repair it."""
    copy.mkdir()
    for name in ("llmd.db", "llmd.db-wal"):
        if daemon.database.with_name(name).exists():
            shutil.copy(daemon.database.with_name(name), copy)
    with closing(sqlite3.connect(copy / "llmd.db")) as tx:
        assert tx.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert tx.execute("PRAGMA foreign_key_check").fetchall() == []
        stored = Counter(row[0] for row in tx.execute('SELECT "user" FROM turns'))
        gaps = tx.execute(
            "SELECT s.id FROM sessions s JOIN turns t ON t.session_pk = s.pk GROUP BY s.pk "
            "HAVING count(*) != s.num_turns OR max(t.seq) != s.num_turns"
        ).fetchall()
    shutil.rmtree(copy)
    assert gaps == []
    assert set(stored.values()) <= {1}
    assert set(acknowledged) <= set(stored)


def test_no_acknowledged_answer_is_lost_or_doubled(start_daemon: Starter, tmp_path: Path) -> None:
    """After each of 20 kills under 8 writers every acknowledged turn is stored exactly once."""
    daemon = start_daemon()
    daemon.put_profile("bare", template="{input}", history_turns=0, max_tokens=2)
    writers = [Writer(daemon.client, number) for number in range(NUM_WRITERS)]

    def acknowledged() -> Counter[str]:
        return Counter(prompt for writer in writers for prompt in list(writer.acknowledged))

    for writer in writers:
        writer.start()
    try:
        for number in range(NUM_KILLS):
            before = acknowledged().total()
            wanted = before + random.randrange(1, 2 * NUM_WRITERS)
            until(
                lambda wanted=wanted: (  # type: ignore[misc]
                    acknowledged().total() >= wanted or any(w.error for w in writers)
                ),
                "the writers get answers",
            )
            assert [writer.error for writer in writers if writer.error] == []
            daemon.kill()
            _check_store(daemon, tmp_path / f"crash{number}", acknowledged())
            daemon.start()
    finally:
        for writer in writers:
            writer.stopped.set()
        for writer in writers:
            writer.join()
    assert [writer.error for writer in writers if writer.error] == []
    assert all(writer.acknowledged for writer in writers)
    _check_store(daemon, tmp_path / "end", acknowledged())

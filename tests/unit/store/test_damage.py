"""Databases with random damage, which must be refused with the way to restore a backup."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from llmd.daemon.run import open_database
from llmd.errors import ImportRefused, SchemaError
from llmd.store.backup import restore
from llmd.store.settings import Settings
from llmd.store.tables import metadata

NUM_DAMAGES = 500


def overwrite(raw: bytearray, start: int, end: int, dice: random.Random) -> None:
    """Replace up to 8 bytes at a random place from `start` to `end`."""
    at = dice.randrange(start, end)
    for index in range(at, min(at + dice.choice((1, 1, 2, 4, 8)), end)):
        raw[index] = dice.choice((dice.randrange(256), 0, 0xFF, raw[index] ^ 0x20, ord("x")))


def in_schema_text(raw: bytearray, dice: random.Random) -> None:
    """Damage the text of a CREATE statement."""
    starts = []
    at = raw.find(b"CREATE ")
    while at >= 0:
        starts.append(at)
        at = raw.find(b"CREATE ", at + 1)
    start = dice.choice(starts)
    overwrite(raw, start, min(start + 400, len(raw)), dice)


def in_schema_row(raw: bytearray, dice: random.Random) -> None:
    """Damage the type, the name or the length of an entry of the schema."""
    start = raw.find(b"CREATE ", dice.randrange(len(raw) // 4))
    overwrite(raw, max(start - 40, 0), start + 10, dice)


def in_first_page(raw: bytearray, dice: random.Random) -> None:
    """Damage the header of the file, or the beginning of the schema."""
    overwrite(raw, 0, 4096, dice)


def anywhere(raw: bytearray, dice: random.Random) -> None:
    """Damage any place."""
    overwrite(raw, 0, len(raw), dice)


def a_page(raw: bytearray, dice: random.Random) -> None:
    """Overwrite a page by zeros or by another page."""
    pages = range(0, len(raw), 4096)
    to, source = dice.choice(pages), dice.choice(pages)
    raw[to : to + 4096] = dice.choice((bytes(4096), raw[source : source + 4096]))


def the_end(raw: bytearray, dice: random.Random) -> None:
    """Cut the file off, but leave at least a byte."""
    del raw[dice.randrange(1, len(raw)) :]


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [
    in_schema_text,
    in_schema_text,
    in_schema_text,
    in_schema_row,
    in_first_page,
    anywhere,
    a_page,
    the_end,
]


def refusal(file: Path) -> str | None:
    """Return why the daemon cannot open a database, or None if it can and all rows can be read.

    Only the errors that end the daemon with the exit code 78 are expected.
    """
    try:
        db = open_database(f"sqlite:///{file}")
    except SchemaError as error:
        return error.message
    try:
        for table in metadata.sorted_tables:
            with db.read() as tx:
                tx.execute(table.select()).all()
    except SchemaError as error:
        # Damage in a row cannot be told from a change, unless the row cannot be read.
        return error.message
    finally:
        db.close()
    return None


@pytest.mark.parametrize("part", range(10))
def test_any_damage_is_refused_with_the_way_to_restore(
    tmp_path: Path, blank_database: bytes, part: int
) -> None:
    """A damaged database either raises SchemaError, whose exit code is 78, or works as before."""
    num = NUM_DAMAGES // 10
    for seed in range(part * num, (part + 1) * num):
        dice = random.Random(seed)
        raw = bytearray(blank_database)
        damage = DAMAGES[seed % len(DAMAGES)]
        damage(raw, dice)
        file = tmp_path / f"{seed}.db"
        file.write_bytes(raw)
        found = refusal(file)
        assert found is None or "llmd db restore FILE" in found, (seed, damage, found)


def test_any_damage_of_the_first_bytes_is_refused_or_harmless(
    tmp_path: Path, blank_database: bytes
) -> None:
    """Each byte of the header of the file is replaced by others in turn."""
    file = tmp_path / "llmd.db"
    for at in range(100):
        for value in (3, 0xFF):
            raw = bytearray(blank_database)
            raw[at] = value
            file.write_bytes(raw)
            found = refusal(file)
            assert found is None or "llmd db restore FILE" in found, (at, value, found)
            for name in ("llmd.db-wal", "llmd.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"CREATE TABLE responses", b"CREATE TABLE responzes"),
        (b"role IN ('admin', 'user')", b"role IN ('admin', 'uzer')"),
        (b"num_turns INTEGER", b"num_turnz INTEGER"),
        (b"hash TEXT NOT NULL", b"hash TEXT     NULL"),
        (b"ON DELETE CASCADE", b"ON DELETE RESTRIC"),
        (b"CREATE TABLE turns", b"CREATE TABLE \xff\xfe\xfd\xfc\xfb"),
        (b"CREATE INDEX ix_keys", b"CREATE VIEWX ix_keys"),
        (b"version_num VARCHAR", b"version_nun VARCHAR"),
    ],
)
def test_a_changed_statement_of_the_schema_is_damage(
    tmp_path: Path, blank_database: bytes, before: bytes, after: bytes
) -> None:
    """A statement that SQLite still understands, but that says something else, is found too."""
    assert blank_database.count(before) >= 1
    file = tmp_path / "llmd.db"
    file.write_bytes(blank_database.replace(before, after))
    with pytest.raises(SchemaError, match="llmd db restore FILE"):
        open_database(f"sqlite:///{file}")


def test_a_lost_schema_is_not_taken_for_a_new_database(
    tmp_path: Path, blank_database: bytes
) -> None:
    """A file with pages but without tables is damaged. A new schema would hide what was lost."""
    file = tmp_path / "llmd.db"
    file.write_bytes(blank_database)
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA writable_schema=ON")
        raw.execute("DELETE FROM sqlite_master")
    raw.close()
    with pytest.raises(SchemaError, match="llmd db restore FILE"):
        open_database(f"sqlite:///{file}")


@pytest.mark.parametrize("revision", ["0001", "9999", "", "\ufffd"])
def test_a_changed_revision_is_refused(
    tmp_path: Path, blank_database: bytes, revision: str
) -> None:
    """A revision that the tables do not have is found, and the database stays as it is."""
    file = tmp_path / "llmd.db"
    file.write_bytes(blank_database)
    with sqlite3.connect(file) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    raw.close()
    with pytest.raises(SchemaError, match="llmd db restore FILE"):
        open_database(f"sqlite:///{file}")


def test_a_table_of_the_admin_is_no_damage(tmp_path: Path, blank_database: bytes) -> None:
    """Additional tables and statistics do not keep the daemon from starting."""
    file = tmp_path / "llmd.db"
    file.write_bytes(blank_database)
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE notes (text)")
        raw.execute("ANALYZE")
    raw.close()
    db = open_database(f"sqlite:///{file}")
    assert Settings(db).selection().profile == "default"
    db.close()


def test_a_backup_with_a_damaged_schema_is_not_restored(
    tmp_path: Path, blank_database: bytes
) -> None:
    """A backup whose schema has changed is refused, and the present database is kept."""
    file, damaged = tmp_path / "llmd.db", tmp_path / "damaged.db"
    file.write_bytes(blank_database)
    for after in (b"num_turnz INTEGER", b"num_turn\xff INTEGER"):
        damaged.write_bytes(blank_database.replace(b"num_turns INTEGER", after))
        with pytest.raises(ImportRefused, match="damaged"):
            restore(f"sqlite:///{file}", damaged, now=0)
    assert file.read_bytes() == blank_database

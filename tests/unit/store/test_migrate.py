"""Creating and upgrading the schema."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event

from llmd.errors import ConfigError, SchemaError
from llmd.store import migrate
from llmd.store.db import make_engine
from llmd.store.tables import metadata

NEXT = """
import sqlalchemy as sa
from alembic import op
revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("sessions") as batch:
        batch.add_column(sa.Column("color", sa.Text(), nullable=False, server_default="blue"))
        batch.alter_column("name", type_=sa.String(200))
    op.execute("UPDATE sessions SET color = 'red'")


def downgrade() -> None:
    with op.batch_alter_table("sessions") as batch:
        batch.drop_column("color")
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path}/llmd.db"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Return a folder with the revisions of llmd and one more."""
    folder = tmp_path / "scripts"
    shutil.copytree(str(resources.files("llmd.migrations")), folder)
    (folder / "versions" / "0004_color.py").write_text(NEXT)
    return folder


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return the result of a query, without using llmd."""
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query).fetchall()


def fill(path: Path) -> None:
    """Insert a key, a session and a turn."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT INTO keys VALUES ('k','n','admin','h',NULL,1,NULL,NULL,NULL)")
        file.execute("INSERT INTO sessions VALUES (7,'k','1','hello',1,1,1)")
        file.execute(
            "INSERT INTO turns VALUES "
            "(7,1,'question','answer','p',1,'m.gguf',1,2,3,'stop',NULL,1,NULL,'')"
        )


def schema(path: Path) -> list[tuple[object, ...]]:
    """Return the schema of a file, without the tables of Alembic and SQLite."""
    names = "tbl_name NOT IN ('alembic_version', 'sqlite_sequence')"
    found = rows(path, f"SELECT type, name, sql FROM sqlite_master WHERE {names} ORDER BY 1, 2")
    return [(kind, name, " ".join(str(sql).split())) for kind, name, sql in found]


def test_the_newest_revision_makes_exactly_the_tables(url: str, tmp_path: Path) -> None:
    """The revisions create the schema of `tables`, including the names of constraints."""
    migrate.upgrade(url, now=0)
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/other.db")
    metadata.create_all(other)
    assert sorted(schema(tmp_path / "llmd.db")) == sorted(schema(tmp_path / "other.db"))
    engine = make_engine(url, "reader")
    with engine.connect() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    other.dispose()


def test_every_revision_goes_down_and_up(url: str, tmp_path: Path) -> None:
    """Downgrading to nothing and upgrading again results in the same schema."""
    migrate.upgrade(url, now=0)
    before = schema(tmp_path / "llmd.db")
    engine = make_engine(url, "migration")
    with engine.begin() as tx:
        command.downgrade(migrate.alembic_config(tx), "base")
    assert schema(tmp_path / "llmd.db") == []
    with engine.begin() as tx:
        command.upgrade(migrate.alembic_config(tx), "head")
    engine.dispose()
    assert schema(tmp_path / "llmd.db") == before


def test_turns_from_before_thoughts_were_stored_have_none(url: str, tmp_path: Path) -> None:
    """Turns of the revision 0002 are kept, with an empty thought."""
    migrate.upgrade(url, now=0)
    engine = make_engine(url, "migration")
    with engine.begin() as tx:
        command.downgrade(migrate.alembic_config(tx), "0002")
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "llmd.db")) as file, file:
        file.execute("INSERT INTO keys VALUES ('k','n','admin','h',NULL,1,NULL,NULL,NULL)")
        file.execute("INSERT INTO sessions VALUES (7,'k','1','hello',1,1,1)")
        turn = "(7,1,'question','answer','p',1,'m.gguf',1,2,3,'stop',NULL,1,NULL)"
        file.execute(f"INSERT INTO turns VALUES {turn}")
    migrate.upgrade(url, now=0)
    assert rows(tmp_path / "llmd.db", "SELECT user, reasoning FROM turns") == [("question", "")]


def test_a_second_upgrade_does_nothing(url: str, tmp_path: Path) -> None:
    """At the newest revision, an upgrade changes nothing and makes no copy."""
    first = migrate.upgrade(url, now=0)
    assert (first.before, first.after, first.backup) == (None, migrate.head(), None)
    before = (tmp_path / "llmd.db").read_bytes()
    second = migrate.upgrade(url, now=0)
    assert (second.before, second.after, second.backup) == (migrate.head(), migrate.head(), None)
    assert (tmp_path / "llmd.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["llmd.db"]


def test_an_older_database_is_copied_first(url: str, tmp_path: Path, scripts: Path) -> None:
    """The copy has the old schema and every row, is private and is named for its revision."""
    migrate.upgrade(url, now=0)
    fill(tmp_path / "llmd.db")
    done = migrate.upgrade(url, now=0, scripts=scripts)
    assert done.backup == tmp_path / "llmd.db.0003.19700101T000000Z.bak"
    assert done.backup.stat().st_mode & 0o777 == 0o600
    assert rows(done.backup, "SELECT name FROM sessions") == [("hello",)]
    assert rows(done.backup, "SELECT version_num FROM alembic_version") == [("0003",)]
    assert (done.before, done.after) == ("0003", "0004")


def test_rebuilding_a_table_loses_none_of_the_rows_that_refer_to_it(
    url: str, tmp_path: Path, scripts: Path
) -> None:
    """A batch revision drops and renames `sessions`, but keeps their turns."""
    migrate.upgrade(url, now=0)
    fill(tmp_path / "llmd.db")
    migrate.upgrade(url, now=0, scripts=scripts)
    assert rows(tmp_path / "llmd.db", "SELECT name, color FROM sessions") == [("hello", "red")]
    assert rows(tmp_path / "llmd.db", "SELECT user FROM turns") == [("question",)]


def test_a_failing_revision_changes_nothing(url: str, tmp_path: Path, scripts: Path) -> None:
    """An error in the last statement undoes the first one and leaves no copy."""
    migrate.upgrade(url, now=0)
    fill(tmp_path / "llmd.db")
    before = schema(tmp_path / "llmd.db")
    broken = NEXT.replace("UPDATE sessions", "UPDATE nowhere")
    (scripts / "versions" / "0004_color.py").write_text(broken)
    with pytest.raises(SchemaError, match=r"changed nothing: .*no such table: nowhere"):
        migrate.upgrade(url, now=0, scripts=scripts)
    assert schema(tmp_path / "llmd.db") == before
    assert migrate.current(url) == "0003"
    assert list(tmp_path.glob("*.bak")) == []


def test_a_revision_that_breaks_a_reference_is_not_committed(
    url: str, tmp_path: Path, scripts: Path
) -> None:
    """Foreign keys are off while tables are rebuilt, and are checked before the commit."""
    migrate.upgrade(url, now=0)
    fill(tmp_path / "llmd.db")
    careless = NEXT.replace("UPDATE sessions SET color = 'red'", "DELETE FROM sessions")
    (scripts / "versions" / "0004_color.py").write_text(careless)
    with pytest.raises(SchemaError, match="references"):
        migrate.upgrade(url, now=0, scripts=scripts)
    assert rows(tmp_path / "llmd.db", "SELECT count(*) FROM turns, sessions") == [(1,)]


@pytest.fixture
def killer() -> Iterator[list[int]]:
    """Provide a counter of statements. The process kills itself when it reaches 0."""
    left = [-1]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    yield left
    event.remove(Engine, "before_cursor_execute", count)
    event.remove(Engine, "commit", count)


def test_a_kill_at_any_statement_leaves_the_old_schema_or_the_new(
    url: str, tmp_path: Path, scripts: Path, killer: list[int]
) -> None:
    """After SIGKILL at any statement the old schema is whole, and the next upgrade succeeds."""
    path = tmp_path / "llmd.db"
    migrate.upgrade(url, now=0)
    fill(path)
    old = schema(path)
    pristine = path.read_bytes()
    num_kills = 0
    while True:
        child = os.fork()
        if child == 0:
            killer[0] = num_kills + 1
            migrate.upgrade(url, now=num_kills, scripts=scripts)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        num_kills += 1
        assert migrate.current(url) == "0003"
        assert schema(path) == old
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert num_kills > 10
    assert migrate.current(url) == "0004"
    assert rows(path, "SELECT color, user FROM sessions, turns") == [("red", "question")]
    assert pristine != path.read_bytes()


def test_a_newer_database_is_refused(url: str, scripts: Path) -> None:
    """A revision that this version does not know can be neither upgraded nor used."""
    migrate.upgrade(url, now=0, scripts=scripts)
    with pytest.raises(SchemaError, match="newer"):
        migrate.upgrade(url, now=0)
    with pytest.raises(SchemaError, match="newer"):
        migrate.require_head(url)


def test_require_head_names_the_command(url: str, scripts: Path) -> None:
    """The error for an empty or old database names the command to run."""
    with pytest.raises(SchemaError, match="llmd init"):
        migrate.require_head(url)
    migrate.upgrade(url, now=0)
    migrate.require_head(url)
    with pytest.raises(SchemaError, match="llmd db upgrade"):
        migrate.require_head(url, scripts=scripts)


def test_reading_the_revision_creates_no_file(url: str, tmp_path: Path) -> None:
    """`current` of a missing database is None and does not create it."""
    assert migrate.current(url) is None
    assert not (tmp_path / "llmd.db").exists()


def test_a_database_of_another_program_is_left_alone(url: str, tmp_path: Path) -> None:
    """A database that has tables but no revision is refused."""
    with closing(sqlite3.connect(tmp_path / "llmd.db")) as file:
        file.execute("CREATE TABLE recipes (id)")
    with pytest.raises(SchemaError, match="another program"):
        migrate.upgrade(url, now=0)
    assert [row[1] for row in schema(tmp_path / "llmd.db")] == ["recipes"]


def test_a_missing_folder_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    """A missing folder is named but not created: its owner and mode are the admin's choice."""
    with pytest.raises(ConfigError, match="nowhere"):
        migrate.upgrade(f"sqlite:///{tmp_path}/nowhere/llmd.db", now=0)

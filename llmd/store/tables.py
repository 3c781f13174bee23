"""The tables, as the newest revision in `migrations` creates them.

Times are unix seconds. Only `llmd.store.migrate` creates tables, never this module. A test checks
that both define the same schema.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# Every constraint needs a name, because a later revision can only change one by its name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("hash", Text, nullable=False),
    # Only seed keys have a digest: they contain no id by which to find them.
    Column("digest", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    CheckConstraint("role IN ('admin', 'user')", name="role"),
    UniqueConstraint("digest"),
    Index(None, "created_at", "id"),
)

# A deleted profile keeps its row and its revisions, because turns refer to them. A profile that is
# created again under the same name continues the numbering.
profiles = Table(
    "profiles",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("deleted_at", BigInteger),
)

profile_revisions = Table(
    "profile_revisions",
    metadata,
    Column("name", String(64), ForeignKey("profiles.name"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("pk", Integer, primary_key=True),
    Column("key_id", String(64), ForeignKey("keys.id"), nullable=False),
    Column("id", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("num_turns", Integer, nullable=False),
    UniqueConstraint("key_id", "id"),
    # Sessions are listed by `pk`, so no number may be used again after the newest is deleted.
    sqlite_autoincrement=True,
)

turns = Table(
    "turns",
    metadata,
    Column("session_pk", Integer, ForeignKey("sessions.pk", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("user", Text, nullable=False),
    Column("assistant", Text, nullable=False),
    Column("profile", String(64), nullable=False),
    Column("profile_revision", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("num_prompt_tokens", Integer, nullable=False),
    Column("num_cached_tokens", Integer, nullable=False),
    Column("num_completion_tokens", Integer, nullable=False),
    Column("finish_reason", String(32), nullable=False),
    Column("seed", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    # A JSON list of the messages, if the two texts do not contain everything, as with tool calls.
    Column("messages", Text),
    # The thought before the answer; empty if there was none.
    Column("reasoning", Text, nullable=False, server_default=text("''")),
)

responses = Table(
    "responses",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("session_pk", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("body", Text, nullable=False),
    ForeignKeyConstraint(
        ["session_pk", "seq"],
        ["turns.session_pk", "turns.seq"],
        name="fk_responses_session_pk_seq_turns",
        ondelete="CASCADE",
    ),
    UniqueConstraint("session_pk", "seq", name="uq_responses_session_pk_seq"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
)

"""Add the table of responses, and the messages of a turn, for the Responses API of OpenAI."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("turns", sa.Column("messages", sa.Text(), nullable=True))
    op.create_table(
        "responses",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("session_pk", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_pk", "seq"],
            ["turns.session_pk", "turns.seq"],
            name="fk_responses_session_pk_seq_turns",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        sa.UniqueConstraint("session_pk", "seq", name="uq_responses_session_pk_seq"),
    )


def downgrade() -> None:
    op.drop_table("responses")
    with op.batch_alter_table("turns") as batch:
        batch.drop_column("messages")

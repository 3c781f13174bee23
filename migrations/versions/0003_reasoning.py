"""Add the thought of each turn, which later turns pass on to the model's chat template."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "turns", sa.Column("reasoning", sa.Text(), server_default=sa.text("''"), nullable=False)
    )


def downgrade() -> None:
    with op.batch_alter_table("turns") as batch:
        batch.drop_column("reasoning")

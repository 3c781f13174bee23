"""Run the revisions on the connection that `llmd.store.migrate` passes in."""

from __future__ import annotations

from alembic import context

from llmd.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    # Alembic assumes that SQLite has no transactional DDL; after an explicit BEGIN it does.
    transactional_ddl=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()

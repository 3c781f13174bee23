"""The Alembic revisions of the database, installed as llmd.migrations."""

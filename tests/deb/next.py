"""A later version of a package: the same files, more migrations and a higher version."""

from __future__ import annotations

import subprocess
from pathlib import Path

GOOD = "op.create_table('notes', sa.Column('id', sa.Integer(), primary_key=True))"
"""Adds a table, since the package's own tables, which the start compares, stay as they are."""
BROKEN = "op.execute('UPDATE keys SET no_such_column = 1')"

FIRST = 9001
"""The revision of the first added migration."""

_MIGRATION = '''"""Add what a later version needs."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    {step}


def downgrade() -> None:
    op.drop_table("notes")
'''


def make_next(deb: Path, folder: Path, version: str, *steps: str) -> Path:
    """Write a package with one migration per step into `folder`, and return its path."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control, preinst = tree / "DEBIAN/control", tree / "DEBIAN/preinst"
    lines = control.read_text().splitlines()
    [before] = [line.removeprefix("Version: ") for line in lines if line.startswith("Version: ")]
    control.write_text(control.read_text().replace(before, version))
    [versions] = tree.glob("usr/lib/llmd/lib/python3.*/site-packages/llmd/migrations/versions")
    revisions = sorted(file.name[:4] for file in versions.glob("[0-9]*.py"))
    added = [str(number) for number in range(FIRST, FIRST + len(steps))]
    for before_it, revision, step in zip([revisions[-1], *added], added, steps, strict=False):
        text = _MIGRATION.format(before=before_it, revision=revision, step=step)
        (versions / f"{revision}_later.py").write_text(text)
    text = preinst.read_text().replace(before, version)
    known = f'" {" ".join(revisions)} "'
    assert known in text
    preinst.write_text(text.replace(known, f'" {" ".join([*revisions, *added])} "'))
    made = folder / f"llmd_{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", "-Znone", tree, made], check=True)
    subprocess.run(["rm", "-rf", tree], check=True)
    return made

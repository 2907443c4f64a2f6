"""At what part of its rate a training of a single network ended, where it had diverged."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of trainings made before it is not known, and hardly any will have diverged.
    op.execute("ALTER TABLE verification_runs ADD COLUMN rate_factor double precision NOT NULL DEFAULT 1")


def downgrade() -> None:
    op.execute("ALTER TABLE verification_runs DROP COLUMN rate_factor")

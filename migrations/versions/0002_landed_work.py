"""What of a job's work has landed, so that attempts that got further do not count against it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE jobs "
        "ADD COLUMN landed bigint NOT NULL DEFAULT 0, "
        "ADD COLUMN landed_at_attempt integer NOT NULL DEFAULT 0"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE jobs DROP COLUMN landed, DROP COLUMN landed_at_attempt")

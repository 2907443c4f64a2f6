"""What a probe's sentinel took: how fast a device was in one sitting, next to another."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Files of before had sentinels of all sorts, which compare with nothing.
    op.execute(
        """
        ALTER TABLE measurements
            ADD COLUMN sentinel_key text,
            ADD COLUMN sentinel_ms double precision
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE measurements DROP COLUMN sentinel_key, DROP COLUMN sentinel_ms")

"""How long a probe took: what a search would cost is told before anything is measured."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not known of the probes that were measured before.
    op.execute("ALTER TABLE probe_results ADD COLUMN duration_s double precision")


def downgrade() -> None:
    op.execute("ALTER TABLE probe_results DROP COLUMN duration_s")

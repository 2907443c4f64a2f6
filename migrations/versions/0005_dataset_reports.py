"""Data sets tell how they were taken in: a report, unreadable images, the rule for their size."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Until now the order of the images was part of the fingerprint: format 1.
ADD_COLUMNS = """
ALTER TABLE datasets
    ADD COLUMN fingerprint_format integer,
    ADD COLUMN num_unreadable integer,
    ADD COLUMN stored_rule text,
    ADD COLUMN given_splits jsonb,
    ADD COLUMN report jsonb;
UPDATE datasets SET fingerprint_format = 1, num_unreadable = 0 WHERE fingerprint IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(ADD_COLUMNS)


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE datasets
            DROP COLUMN fingerprint_format,
            DROP COLUMN num_unreadable,
            DROP COLUMN stored_rule,
            DROP COLUMN given_splits,
            DROP COLUMN report;
        """
    )

"""Searches that DeepMAD looks at before anything is measured for them."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE searches
            ADD COLUMN prefilter text NOT NULL DEFAULT 'none',
            ADD COLUMN prefilter_seeds jsonb,
            ADD COLUMN prefilter_report jsonb,
            ADD CONSTRAINT ck_searches_prefilter CHECK (prefilter IN ('none', 'deepmad'));
        ALTER TABLE trials DROP CONSTRAINT ck_trials_origin;
        ALTER TABLE trials ADD CONSTRAINT ck_trials_origin CHECK (
            origin IN ('inherited', 'seed', 'prefilter', 'proposed', 'mutated', 'random'));
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE searches
            DROP COLUMN prefilter,
            DROP COLUMN prefilter_seeds,
            DROP COLUMN prefilter_report;
        UPDATE trials SET origin = 'seed' WHERE origin = 'prefilter';
        ALTER TABLE trials DROP CONSTRAINT ck_trials_origin;
        ALTER TABLE trials ADD CONSTRAINT ck_trials_origin CHECK (
            origin IN ('inherited', 'seed', 'proposed', 'mutated', 'random'));
        """
    )

"""Trials that the proposer drew at random, apart from those that it chose."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_BEFORE = "'inherited', 'seed', 'prefilter', 'proposed', 'mutated', 'random'"


def upgrade() -> None:
    # Of searches made before, what was drawn so stays among the proposed: it is not kept which.
    _allow(f"{_BEFORE}, 'explored'")


def downgrade() -> None:
    op.execute("UPDATE trials SET origin = 'proposed' WHERE origin = 'explored'")
    _allow(_BEFORE)


def _allow(origins: str) -> None:
    op.execute(
        f"""
        ALTER TABLE trials DROP CONSTRAINT ck_trials_origin;
        ALTER TABLE trials ADD CONSTRAINT ck_trials_origin CHECK (origin IN ({origins}))
        """
    )

"""Trials that the proposer drew at random, apart from those that it chose."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_BEFORE = ("inherited", "seed", "prefilter", "proposed", "mutated", "random")
_NOW = (*_BEFORE[:4], "explored", *_BEFORE[4:])


def upgrade() -> None:
    # Of searches made before, what was drawn so stays among the proposed: it is not kept which.
    _allow(_NOW)


def downgrade() -> None:
    op.execute("UPDATE trials SET origin = 'proposed' WHERE origin = 'explored'")
    _allow(_BEFORE)


def _allow(origins: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{origin}'" for origin in origins)
    op.execute(
        f"""
        ALTER TABLE trials DROP CONSTRAINT ck_trials_origin;
        ALTER TABLE trials ADD CONSTRAINT ck_trials_origin CHECK (origin IN ({listed}))
        """
    )

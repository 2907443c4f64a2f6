"""Evaluations that no answer needs are marked, so that an answer reads about a thousand of a million."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# All are taken for superseded at first: then only the few that are not have to be written again.
ADD_COLUMN = """
ALTER TABLE evaluations ADD COLUMN is_superseded boolean NOT NULL DEFAULT true;
ALTER TABLE evaluations ALTER COLUMN is_superseded SET DEFAULT false;
CREATE INDEX ix_evaluations_candidates ON evaluations
    (supernet_id, checkpoint, split, num_images, calibration, num_correct DESC, macs, id)
    WHERE NOT is_superseded;
CREATE INDEX ix_evaluations_costs ON evaluations
    (supernet_id, checkpoint, split, num_images, calibration,
     macs, params, size_bytes, peak_activation_bytes);
DROP INDEX ix_evaluations_supernet_id_split_macs;
"""

# Best first, only an earlier evaluation can supersede a later one, and a candidate among them does.
MARK_CANDIDATES = """
DO $$
DECLARE
    e record;
BEGIN
    FOR e IN
        SELECT id, supernet_id, checkpoint, split, num_images, calibration,
            num_correct, macs, params, size_bytes, peak_activation_bytes
        FROM evaluations
        ORDER BY supernet_id, checkpoint, split, num_images, calibration, num_correct DESC, macs, id
    LOOP
        PERFORM FROM evaluations AS c
        WHERE NOT c.is_superseded
            AND (c.supernet_id, c.checkpoint, c.split, c.num_images, c.calibration)
                = (e.supernet_id, e.checkpoint, e.split, e.num_images, e.calibration)
            AND c.macs <= e.macs AND c.params <= e.params AND c.size_bytes <= e.size_bytes
            AND c.peak_activation_bytes <= e.peak_activation_bytes
        LIMIT 1;
        IF NOT FOUND THEN
            UPDATE evaluations SET is_superseded = false WHERE id = e.id;
        END IF;
    END LOOP;
END
$$;
"""


def upgrade() -> None:
    op.execute(ADD_COLUMN)
    op.execute(MARK_CANDIDATES)


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX ix_evaluations_candidates, ix_evaluations_costs;
        CREATE INDEX ix_evaluations_supernet_id_split_macs ON evaluations (supernet_id, split, macs);
        ALTER TABLE evaluations DROP COLUMN is_superseded;
        """
    )

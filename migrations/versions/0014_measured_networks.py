"""Whole networks whose latency was measured, each by its key; work files of networks that were asked for."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Measurements of before have no rows: their networks are known to the model alone.
    op.execute(
        """
        CREATE TABLE measured_networks (
            measurements_id text NOT NULL,
            architecture_key text NOT NULL,
            p50_ms double precision NOT NULL,
            again_ms double precision,
            CONSTRAINT pk_measured_networks PRIMARY KEY (measurements_id, architecture_key),
            CONSTRAINT fk_measured_networks_measurements_id_measurements
                FOREIGN KEY (measurements_id) REFERENCES measurements (id)
        );
        CREATE INDEX ix_measured_networks_architecture_key ON measured_networks (architecture_key);
        ALTER TABLE work_files ADD COLUMN architectures jsonb NOT NULL DEFAULT '[]'::jsonb;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE measured_networks;
        ALTER TABLE work_files DROP COLUMN architectures;
        """
    )

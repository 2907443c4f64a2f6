"""Probes during training, what its strategies learn, and its returns from divergence."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE supernets
            ADD COLUMN num_probes integer NOT NULL DEFAULT 0,
            ADD COLUMN probes_flat_at_epoch integer,
            ADD COLUMN rollbacks jsonb NOT NULL DEFAULT '[]'::jsonb;
        ALTER TABLE training_points ADD COLUMN strategies jsonb NOT NULL DEFAULT '{}'::jsonb;
        CREATE TABLE probe_networks (
            supernet_id text NOT NULL,
            number integer NOT NULL,
            role text NOT NULL,
            architecture_key text NOT NULL,
            architecture jsonb NOT NULL,
            macs bigint NOT NULL,
            params bigint NOT NULL,
            size_bytes bigint NOT NULL,
            peak_activation_bytes bigint NOT NULL,
            CONSTRAINT pk_probe_networks PRIMARY KEY (supernet_id, number),
            CONSTRAINT fk_probe_networks_supernet_id_supernets
                FOREIGN KEY (supernet_id) REFERENCES supernets (id),
            CONSTRAINT ck_probe_networks_role CHECK (role IN ('largest', 'smallest', 'drawn'))
        );
        CREATE TABLE probe_results (
            supernet_id text NOT NULL,
            epoch integer NOT NULL,
            number integer NOT NULL,
            num_correct integer NOT NULL,
            num_images integer NOT NULL,
            CONSTRAINT pk_probe_results PRIMARY KEY (supernet_id, epoch, number),
            CONSTRAINT fk_probe_results_supernet_id_supernets
                FOREIGN KEY (supernet_id) REFERENCES supernets (id),
            CONSTRAINT fk_probe_results_number_probe_networks
                FOREIGN KEY (supernet_id, number) REFERENCES probe_networks (supernet_id, number),
            CONSTRAINT ck_probe_results_proportion
                CHECK (num_images > 0 AND num_correct BETWEEN 0 AND num_images)
        );
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE probe_results, probe_networks")
    op.execute("ALTER TABLE training_points DROP COLUMN strategies")
    op.execute(
        """
        ALTER TABLE supernets
            DROP COLUMN num_probes,
            DROP COLUMN probes_flat_at_epoch,
            DROP COLUMN rollbacks;
        """
    )

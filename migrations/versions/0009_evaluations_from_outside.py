"""Networks given from outside to be measured, and a list of everything measured."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind;
        ALTER TABLE jobs ADD CONSTRAINT ck_jobs_kind
            CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise', 'evaluate'));
        CREATE TABLE evaluation_batches (
            id text NOT NULL,
            display_name text NOT NULL,
            labels jsonb NOT NULL,
            job_id text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            supernet_id text NOT NULL,
            constraints jsonb NOT NULL,
            num_architectures integer NOT NULL,
            CONSTRAINT pk_evaluation_batches PRIMARY KEY (id),
            CONSTRAINT uq_evaluation_batches_job_id UNIQUE (job_id),
            CONSTRAINT fk_evaluation_batches_job_id_jobs FOREIGN KEY (job_id) REFERENCES jobs (id),
            CONSTRAINT fk_evaluation_batches_supernet_id_supernets
                FOREIGN KEY (supernet_id) REFERENCES supernets (id)
        );
        CREATE INDEX ix_evaluation_batches_created_at_id ON evaluation_batches (created_at, id);
        CREATE INDEX ix_evaluation_batches_supernet_id ON evaluation_batches (supernet_id);
        CREATE TABLE evaluation_items (
            batch_id text NOT NULL,
            number integer NOT NULL,
            architecture_key text NOT NULL,
            architecture jsonb NOT NULL,
            macs bigint NOT NULL,
            params bigint NOT NULL,
            size_bytes bigint NOT NULL,
            peak_activation_bytes bigint NOT NULL,
            is_infeasible boolean NOT NULL,
            evaluation_id bigint,
            is_reused boolean NOT NULL DEFAULT false,
            CONSTRAINT pk_evaluation_items PRIMARY KEY (batch_id, number),
            CONSTRAINT fk_evaluation_items_batch_id_evaluation_batches
                FOREIGN KEY (batch_id) REFERENCES evaluation_batches (id),
            CONSTRAINT fk_evaluation_items_evaluation_id_evaluations
                FOREIGN KEY (evaluation_id) REFERENCES evaluations (id),
            CONSTRAINT ck_evaluation_items_infeasible CHECK (evaluation_id IS NULL OR NOT is_infeasible),
            CONSTRAINT ck_evaluation_items_reused CHECK (evaluation_id IS NOT NULL OR NOT is_reused)
        );
        CREATE INDEX ix_evaluation_items_evaluation_id ON evaluation_items (evaluation_id);
        CREATE INDEX ix_evaluations_recorded
            ON evaluations (supernet_id, checkpoint, split, num_images, calibration, id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX ix_evaluations_recorded;
        DROP TABLE evaluation_items, evaluation_batches;
        DELETE FROM job_events USING jobs WHERE jobs.id = job_events.job_id AND jobs.kind = 'evaluate';
        DELETE FROM jobs WHERE kind = 'evaluate';
        ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind;
        ALTER TABLE jobs ADD CONSTRAINT ck_jobs_kind
            CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise'));
        """
    )

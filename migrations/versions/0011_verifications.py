"""Chosen networks measured to the end, and trained on their own to verify what they inherit."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind;
        ALTER TABLE jobs ADD CONSTRAINT ck_jobs_kind
            CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise', 'evaluate', 'verify'));
        CREATE TABLE verifications (
            id text NOT NULL,
            display_name text NOT NULL,
            labels jsonb NOT NULL,
            job_id text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            supernet_id text NOT NULL,
            seed bigint NOT NULL,
            CONSTRAINT pk_verifications PRIMARY KEY (id),
            CONSTRAINT uq_verifications_job_id UNIQUE (job_id),
            CONSTRAINT fk_verifications_job_id_jobs FOREIGN KEY (job_id) REFERENCES jobs (id),
            CONSTRAINT fk_verifications_supernet_id_supernets
                FOREIGN KEY (supernet_id) REFERENCES supernets (id)
        );
        CREATE INDEX ix_verifications_created_at_id ON verifications (created_at, id);
        CREATE INDEX ix_verifications_supernet_id ON verifications (supernet_id);
        CREATE TABLE verified_networks (
            verification_id text NOT NULL,
            number integer NOT NULL,
            trial_number integer,
            architecture_key text NOT NULL,
            architecture jsonb NOT NULL,
            macs bigint NOT NULL,
            params bigint NOT NULL,
            size_bytes bigint NOT NULL,
            peak_activation_bytes bigint NOT NULL,
            evaluation_val_id bigint,
            evaluation_test_id bigint,
            CONSTRAINT pk_verified_networks PRIMARY KEY (verification_id, number),
            CONSTRAINT uq_verified_networks_verification_id_architecture_key
                UNIQUE (verification_id, architecture_key),
            CONSTRAINT fk_verified_networks_verification_id_verifications
                FOREIGN KEY (verification_id) REFERENCES verifications (id),
            CONSTRAINT fk_verified_networks_evaluation_val_id_evaluations
                FOREIGN KEY (evaluation_val_id) REFERENCES evaluations (id),
            CONSTRAINT fk_verified_networks_evaluation_test_id_evaluations
                FOREIGN KEY (evaluation_test_id) REFERENCES evaluations (id)
        );
        CREATE INDEX ix_verified_networks_evaluation_val_id ON verified_networks (evaluation_val_id);
        CREATE INDEX ix_verified_networks_evaluation_test_id ON verified_networks (evaluation_test_id);
        CREATE TABLE verification_runs (
            verification_id text NOT NULL,
            number integer NOT NULL,
            network_number integer NOT NULL,
            training text NOT NULL,
            learning_rate double precision NOT NULL,
            epochs integer NOT NULL,
            state text NOT NULL DEFAULT 'due',
            error text,
            weights_uri text,
            evaluation_val_id bigint,
            evaluation_test_id bigint,
            is_chosen boolean NOT NULL DEFAULT false,
            CONSTRAINT pk_verification_runs PRIMARY KEY (verification_id, number),
            CONSTRAINT fk_verification_runs_verification_id_verifications
                FOREIGN KEY (verification_id) REFERENCES verifications (id),
            CONSTRAINT fk_verification_runs_network_number_verified_networks
                FOREIGN KEY (verification_id, network_number)
                REFERENCES verified_networks (verification_id, number),
            CONSTRAINT fk_verification_runs_evaluation_val_id_evaluations
                FOREIGN KEY (evaluation_val_id) REFERENCES evaluations (id),
            CONSTRAINT fk_verification_runs_evaluation_test_id_evaluations
                FOREIGN KEY (evaluation_test_id) REFERENCES evaluations (id),
            CONSTRAINT ck_verification_runs_training CHECK (training IN ('alone', 'fine_tuned')),
            CONSTRAINT ck_verification_runs_state CHECK (state IN ('due', 'measured', 'failed')),
            CONSTRAINT ck_verification_runs_measured
                CHECK ((evaluation_val_id IS NOT NULL) = (state = 'measured')),
            CONSTRAINT ck_verification_runs_test CHECK (evaluation_test_id IS NULL OR is_chosen)
        );
        CREATE INDEX ix_verification_runs_evaluation_val_id ON verification_runs (evaluation_val_id);
        CREATE INDEX ix_verification_runs_evaluation_test_id ON verification_runs (evaluation_test_id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE verification_runs, verified_networks, verifications;
        DELETE FROM job_events USING jobs WHERE jobs.id = job_events.job_id AND jobs.kind = 'verify';
        DELETE FROM jobs WHERE kind = 'verify';
        ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind;
        ALTER TABLE jobs ADD CONSTRAINT ck_jobs_kind
            CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise', 'evaluate'));
        """
    )

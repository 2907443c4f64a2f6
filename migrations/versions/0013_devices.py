"""Devices: tables, measurements and the models fitted to them; evaluations that are read as columns."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_RESOURCE = """
            id text NOT NULL,
            display_name text NOT NULL,
            labels jsonb NOT NULL,
            job_id text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp()"""
_SOURCE = "num_nonnulls(latency_table_id, measurements_id) = num_nonnulls(device_id)"


def upgrade() -> None:
    op.execute(
        f"""
        ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind;
        ALTER TABLE jobs ADD CONSTRAINT ck_jobs_kind
            CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise', 'evaluate', 'verify',
                'make_work_file', 'fit_latency'));
        CREATE TABLE devices (
            id text NOT NULL,
            runtime text NOT NULL,
            threads integer NOT NULL,
            batch integer NOT NULL,
            dtype text NOT NULL,
            notes text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT pk_devices PRIMARY KEY (id),
            CONSTRAINT ck_devices_dtype CHECK (dtype IN ('fp32', 'fp16', 'bf16', 'int8'))
        );
        CREATE INDEX ix_devices_created_at_id ON devices (created_at, id);
        CREATE TABLE latency_tables (
            id text NOT NULL,
            device_id text NOT NULL,
            content text NOT NULL,
            fills_gaps boolean NOT NULL,
            num_blocks integer NOT NULL,
            base_ms double precision NOT NULL,
            tools jsonb NOT NULL,
            warnings jsonb NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT pk_latency_tables PRIMARY KEY (id),
            CONSTRAINT fk_latency_tables_device_id_devices FOREIGN KEY (device_id) REFERENCES devices (id)
        );
        CREATE INDEX ix_latency_tables_device_id_created_at_id ON latency_tables (device_id, created_at, id);
        CREATE TABLE measurements ({_RESOURCE},
            device_id text NOT NULL,
            search_space text NOT NULL,
            num_classes integer NOT NULL,
            in_channels integer NOT NULL,
            content text NOT NULL,
            num_networks integer NOT NULL,
            num_blocks integer NOT NULL,
            repeatability jsonb NOT NULL,
            model text,
            form jsonb,
            num_judged integer,
            mape double precision,
            hit_rate double precision,
            spearman double precision,
            table_accuracy jsonb,
            CONSTRAINT pk_measurements PRIMARY KEY (id),
            CONSTRAINT uq_measurements_job_id UNIQUE (job_id),
            CONSTRAINT fk_measurements_job_id_jobs FOREIGN KEY (job_id) REFERENCES jobs (id),
            CONSTRAINT fk_measurements_device_id_devices FOREIGN KEY (device_id) REFERENCES devices (id)
        );
        CREATE INDEX ix_measurements_created_at_id ON measurements (created_at, id);
        CREATE INDEX ix_measurements_models
            ON measurements (device_id, search_space, num_classes, in_channels, created_at, id);
        CREATE TABLE work_files ({_RESOURCE},
            search_space text NOT NULL,
            num_classes integer NOT NULL,
            in_channels integer NOT NULL,
            batch integer NOT NULL,
            num_networks integer NOT NULL,
            max_blocks integer NOT NULL,
            seed bigint NOT NULL,
            num_blocks integer,
            num_blocks_of_space integer,
            uri text,
            size_bytes bigint,
            sha256 text,
            CONSTRAINT pk_work_files PRIMARY KEY (id),
            CONSTRAINT uq_work_files_job_id UNIQUE (job_id),
            CONSTRAINT fk_work_files_job_id_jobs FOREIGN KEY (job_id) REFERENCES jobs (id)
        );
        CREATE INDEX ix_work_files_created_at_id ON work_files (created_at, id);
        """
    )
    for table in ("searches", "evaluation_batches"):
        op.execute(
            f"""
            ALTER TABLE {table}
                ADD COLUMN device_id text,
                ADD COLUMN latency_table_id text,
                ADD COLUMN measurements_id text,
                ADD CONSTRAINT fk_{table}_device_id_devices FOREIGN KEY (device_id) REFERENCES devices (id),
                ADD CONSTRAINT fk_{table}_latency_table_id_latency_tables
                    FOREIGN KEY (latency_table_id) REFERENCES latency_tables (id),
                ADD CONSTRAINT fk_{table}_measurements_id_measurements
                    FOREIGN KEY (measurements_id) REFERENCES measurements (id),
                ADD CONSTRAINT ck_{table}_latency_source CHECK ({_SOURCE});
            CREATE INDEX ix_{table}_device_id ON {table} (device_id);
            CREATE INDEX ix_{table}_latency_table_id ON {table} (latency_table_id);
            CREATE INDEX ix_{table}_measurements_id ON {table} (measurements_id);
            """
        )
    op.execute(
        """
        ALTER TABLE evaluation_items ADD COLUMN latency_ms double precision;
        -- Those that are there were all recorded before whatever reads from now on.
        ALTER TABLE evaluations
            ADD COLUMN code bytea,
            ADD COLUMN recorded_in bigint NOT NULL DEFAULT 0;
        ALTER TABLE evaluations ALTER COLUMN recorded_in SET DEFAULT (pg_current_xact_id()::text)::bigint;
        CREATE INDEX ix_evaluations_columns ON evaluations (supernet_id, recorded_in) INCLUDE (checkpoint,
            split, num_images, calibration, id, num_correct, macs, params, size_bytes, peak_activation_bytes,
            code);
        CREATE INDEX ix_evaluations_uncoded ON evaluations (supernet_id, recorded_in) WHERE code IS NULL;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX ix_evaluations_columns, ix_evaluations_uncoded;
        ALTER TABLE evaluations DROP COLUMN code, DROP COLUMN recorded_in;
        ALTER TABLE evaluation_items DROP COLUMN latency_ms;
        """
    )
    for table in ("searches", "evaluation_batches"):
        op.execute(
            f"""
            ALTER TABLE {table}
                DROP COLUMN device_id CASCADE,
                DROP COLUMN latency_table_id CASCADE,
                DROP COLUMN measurements_id CASCADE;
            """
        )
    op.execute(
        """
        DROP TABLE work_files, measurements, latency_tables, devices;
        DELETE FROM job_events USING jobs
            WHERE jobs.id = job_events.job_id AND jobs.kind IN ('make_work_file', 'fit_latency');
        DELETE FROM jobs WHERE kind IN ('make_work_file', 'fit_latency');
        ALTER TABLE jobs DROP CONSTRAINT ck_jobs_kind;
        ALTER TABLE jobs ADD CONSTRAINT ck_jobs_kind
            CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise', 'evaluate', 'verify'));
        """
    )

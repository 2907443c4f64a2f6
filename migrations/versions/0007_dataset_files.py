"""Splits as files to download, and what differed where a training went on after a stop."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE dataset_files (
            dataset_id text NOT NULL,
            name text NOT NULL,
            size_bytes bigint NOT NULL,
            sha256 text NOT NULL,
            media_type text NOT NULL,
            uri text NOT NULL,
            CONSTRAINT pk_dataset_files PRIMARY KEY (dataset_id, name),
            CONSTRAINT fk_dataset_files_dataset_id_datasets
                FOREIGN KEY (dataset_id) REFERENCES datasets (id)
        );
        ALTER TABLE supernets ADD COLUMN resume_departures jsonb NOT NULL DEFAULT '[]'::jsonb;
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE dataset_files")
    op.execute("ALTER TABLE supernets DROP COLUMN resume_departures")

"""Uploads; and what deletion needs: folders that nobody wants, and an index behind every foreign key."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPLOADS = """
CREATE TABLE uploads (
    id           text NOT NULL CONSTRAINT pk_uploads PRIMARY KEY,
    display_name text NOT NULL,
    uri          text NOT NULL,
    size_bytes   bigint NOT NULL,
    sha256       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ix_uploads_created_at_id ON uploads (created_at, id);

ALTER TABLE datasets
    ADD COLUMN upload_id text GENERATED ALWAYS AS (source ->> 'upload_id') STORED
    CONSTRAINT fk_datasets_upload_id_uploads REFERENCES uploads (id);
CREATE INDEX ix_datasets_upload_id ON datasets (upload_id);
"""

DISCARDED_FOLDERS = """
CREATE TABLE discarded_folders (
    key    text NOT NULL CONSTRAINT pk_discarded_folders PRIMARY KEY,
    due_at timestamptz NOT NULL
);
CREATE INDEX ix_discarded_folders_due_at ON discarded_folders (due_at);
"""

# Without them, each row that goes makes PostgreSQL read the whole of every table that might refer to it.
FOREIGN_KEYS = """
CREATE INDEX ix_searches_extends ON searches (extends);
CREATE INDEX ix_trials_evaluation_id ON trials (evaluation_id);
CREATE INDEX ix_subnets_evaluation_val_id ON subnets (evaluation_val_id);
CREATE INDEX ix_subnets_evaluation_test_id ON subnets (evaluation_test_id);
"""


def upgrade() -> None:
    op.execute(UPLOADS)
    op.execute(DISCARDED_FOLDERS)
    op.execute(FOREIGN_KEYS)


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX ix_searches_extends, ix_trials_evaluation_id,
            ix_subnets_evaluation_val_id, ix_subnets_evaluation_test_id;
        ALTER TABLE datasets DROP COLUMN upload_id;
        DROP TABLE discarded_folders, uploads;
        """
    )

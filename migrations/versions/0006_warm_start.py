"""What weights a supernet's training began from."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE supernets
            ADD COLUMN warm_start_supernet_id text
                CONSTRAINT fk_supernets_warm_start_supernet_id_supernets
                REFERENCES supernets (id) ON DELETE SET NULL,
            ADD COLUMN warm_start_upload_id text
                CONSTRAINT fk_supernets_warm_start_upload_id_uploads
                REFERENCES uploads (id) ON DELETE SET NULL,
            ADD COLUMN warm_start_sha256 text,
            ADD CONSTRAINT ck_supernets_warm_start
                CHECK (num_nonnulls(warm_start_supernet_id, warm_start_upload_id) <= 1);
        CREATE INDEX ix_supernets_warm_start_supernet_id ON supernets (warm_start_supernet_id);
        CREATE INDEX ix_supernets_warm_start_upload_id ON supernets (warm_start_upload_id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE supernets
            DROP COLUMN warm_start_supernet_id,
            DROP COLUMN warm_start_upload_id,
            DROP COLUMN warm_start_sha256;
        """
    )

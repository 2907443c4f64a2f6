"""Subnets whose weights a verification has trained, beside those that have what they inherit."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE subnets
            ADD COLUMN verification_id text,
            ADD COLUMN run_number integer,
            ADD COLUMN own_training jsonb,
            ADD CONSTRAINT fk_subnets_verification_id_verifications
                FOREIGN KEY (verification_id) REFERENCES verifications (id) ON DELETE SET NULL,
            ADD CONSTRAINT ck_subnets_own_training
                CHECK ((run_number IS NULL) = (own_training IS NULL));
        CREATE INDEX ix_subnets_verification_id ON subnets (verification_id)
        """
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE subnets DROP COLUMN verification_id, DROP COLUMN run_number, DROP COLUMN own_training"
    )

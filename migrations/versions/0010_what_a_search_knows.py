"""Why a search tried each network, what it had predicted, how far each round got, and why it ended."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE searches ADD COLUMN flat_rounds integer;
        ALTER TABLE searches ADD COLUMN stop_reason text;
        ALTER TABLE searches ADD CONSTRAINT ck_searches_stop_reason CHECK (
            stop_reason IN ('budget_spent', 'exhausted', 'nothing_new_found', 'flat', 'stopped'));
        UPDATE searches SET stop_reason = job_events.payload ->> 'stop_reason'
            FROM job_events WHERE job_events.job_id = searches.job_id AND job_events.kind = 'search_ended';

        ALTER TABLE trials ADD COLUMN origin text;
        ALTER TABLE trials ADD COLUMN predicted_accuracy double precision;
        ALTER TABLE trials ADD COLUMN predicted_low double precision;
        ALTER TABLE trials ADD COLUMN predicted_high double precision;
        ALTER TABLE trials ADD COLUMN predicted_from integer;
        ALTER TABLE trials ADD CONSTRAINT ck_trials_origin CHECK (
            origin IN ('inherited', 'seed', 'proposed', 'mutated', 'random'));
        ALTER TABLE trials ADD CONSTRAINT ck_trials_predicted CHECK (
            num_nulls(predicted_accuracy, predicted_from) IN (0, 2));
        ALTER TABLE trials ADD CONSTRAINT ck_trials_predicted_interval CHECK (
            num_nulls(predicted_low, predicted_high) IN (0, 2)
            AND (predicted_low IS NULL OR predicted_accuracy IS NOT NULL));

        CREATE TABLE search_rounds (
            search_id text NOT NULL,
            number integer NOT NULL,
            num_trials integer NOT NULL,
            num_measured integer NOT NULL,
            hypervolume double precision NOT NULL,
            reference double precision[] NOT NULL,
            num_forecasts integer NOT NULL,
            coverage double precision,
            num_ranked integer NOT NULL,
            within_bin_tau double precision,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT pk_search_rounds PRIMARY KEY (search_id, number),
            CONSTRAINT fk_search_rounds_search_id_searches FOREIGN KEY (search_id) REFERENCES searches (id)
        );
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE search_rounds;
        ALTER TABLE trials
            DROP COLUMN origin, DROP COLUMN predicted_accuracy, DROP COLUMN predicted_low,
            DROP COLUMN predicted_high, DROP COLUMN predicted_from;
        ALTER TABLE searches DROP COLUMN flat_rounds, DROP COLUMN stop_reason;
        """
    )

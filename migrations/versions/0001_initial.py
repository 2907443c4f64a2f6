"""The first schema, in PostgreSQL's own words."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JOBS = """
CREATE TABLE jobs (
    id               text NOT NULL CONSTRAINT pk_jobs PRIMARY KEY,
    kind             text NOT NULL,
    state            text NOT NULL DEFAULT 'queued',
    state_reason     text,
    spec             jsonb NOT NULL,
    resource_id      text NOT NULL,
    depends_on       text CONSTRAINT fk_jobs_depends_on_jobs REFERENCES jobs (id),
    attempt          integer NOT NULL DEFAULT 0,
    max_attempts     integer NOT NULL DEFAULT 5,
    lease_token      text,
    lease_expires_at timestamptz,
    worker           text,
    phase            text,
    done             integer,
    total            integer,
    eta_seconds      double precision,
    error            text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at       timestamptz,
    ended_at         timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_jobs_state CHECK (
        state IN ('queued', 'running', 'cancelling', 'cancelled', 'succeeded', 'failed')
    ),
    CONSTRAINT ck_jobs_kind CHECK (kind IN ('import_dataset', 'train', 'search', 'specialise')),
    CONSTRAINT ck_jobs_lease CHECK (
        (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL) = (state IN ('running', 'cancelling'))
    )
);
CREATE INDEX ix_jobs_claim ON jobs (created_at, id) WHERE state = 'queued';
CREATE INDEX ix_jobs_lease ON jobs (lease_expires_at) WHERE lease_token IS NOT NULL;
CREATE INDEX ix_jobs_depends_on ON jobs (depends_on);
CREATE INDEX ix_jobs_created_at_id ON jobs (created_at, id);

CREATE TABLE job_events (
    id         bigserial NOT NULL CONSTRAINT pk_job_events PRIMARY KEY,
    job_id     text NOT NULL CONSTRAINT fk_job_events_job_id_jobs REFERENCES jobs (id),
    kind       text NOT NULL,
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ix_job_events_job_id_id ON job_events (job_id, id);
"""

DATASETS = """
CREATE TABLE datasets (
    id              text NOT NULL CONSTRAINT pk_datasets PRIMARY KEY,
    display_name    text NOT NULL,
    labels          jsonb NOT NULL,
    job_id          text NOT NULL CONSTRAINT fk_datasets_job_id_jobs REFERENCES jobs (id),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    source          jsonb NOT NULL,
    fingerprint     text,
    num_classes     integer,
    in_channels     integer,
    image_height    integer,
    image_width     integer,
    class_names     jsonb,
    mean            double precision[],
    std             double precision[],
    num_train       integer,
    num_calibration integer,
    num_val         integer,
    num_test        integer,
    CONSTRAINT uq_datasets_job_id UNIQUE (job_id)
);
CREATE INDEX ix_datasets_created_at_id ON datasets (created_at, id);
"""

SUPERNETS = """
CREATE TABLE supernets (
    id           text NOT NULL CONSTRAINT pk_supernets PRIMARY KEY,
    display_name text NOT NULL,
    labels       jsonb NOT NULL,
    job_id       text NOT NULL CONSTRAINT fk_supernets_job_id_jobs REFERENCES jobs (id),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    dataset_id   text NOT NULL CONSTRAINT fk_supernets_dataset_id_datasets REFERENCES datasets (id),
    search_space text NOT NULL,
    recipe       jsonb NOT NULL,
    seed         bigint NOT NULL,
    num_workers  integer NOT NULL,
    checkpoint   text,
    weights_uri  text,
    calibration  text,
    CONSTRAINT uq_supernets_job_id UNIQUE (job_id)
);
CREATE INDEX ix_supernets_created_at_id ON supernets (created_at, id);
CREATE INDEX ix_supernets_dataset_id ON supernets (dataset_id);

CREATE TABLE training_points (
    supernet_id           text NOT NULL
        CONSTRAINT fk_training_points_supernet_id_supernets REFERENCES supernets (id),
    epoch                 integer NOT NULL,
    step                  integer NOT NULL,
    images_seen           bigint NOT NULL,
    train_loss            double precision NOT NULL,
    learning_rate         double precision NOT NULL,
    accuracy_val_largest  double precision,
    accuracy_val_smallest double precision,
    num_images_val        integer,
    elapsed_s             double precision NOT NULL,
    CONSTRAINT pk_training_points PRIMARY KEY (supernet_id, epoch)
);
"""

EVALUATIONS = """
CREATE TABLE evaluations (
    id                    bigserial NOT NULL CONSTRAINT pk_evaluations PRIMARY KEY,
    supernet_id           text NOT NULL
        CONSTRAINT fk_evaluations_supernet_id_supernets REFERENCES supernets (id),
    checkpoint            text NOT NULL,
    architecture_key      text NOT NULL,
    architecture          jsonb NOT NULL,
    split                 text NOT NULL,
    num_images            integer NOT NULL,
    calibration           text NOT NULL,
    num_correct           integer NOT NULL,
    per_class_correct     integer[] NOT NULL,
    per_class_images      integer[] NOT NULL,
    correct_bitmap        bytea NOT NULL,
    macs                  bigint NOT NULL,
    params                bigint NOT NULL,
    size_bytes            bigint NOT NULL,
    peak_activation_bytes bigint NOT NULL,
    duration_s            double precision NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT uq_evaluations_identity
        UNIQUE (supernet_id, checkpoint, architecture_key, split, num_images, calibration),
    CONSTRAINT ck_evaluations_split CHECK (split IN ('val', 'test')),
    CONSTRAINT ck_evaluations_proportion
        CHECK (num_images > 0 AND num_correct BETWEEN 0 AND num_images)
);
CREATE INDEX ix_evaluations_supernet_id_split_macs ON evaluations (supernet_id, split, macs);
"""

SEARCHES = """
CREATE TABLE searches (
    id                   text NOT NULL CONSTRAINT pk_searches PRIMARY KEY,
    display_name         text NOT NULL,
    labels               jsonb NOT NULL,
    job_id               text NOT NULL CONSTRAINT fk_searches_job_id_jobs REFERENCES jobs (id),
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    supernet_id          text NOT NULL
        CONSTRAINT fk_searches_supernet_id_supernets REFERENCES supernets (id),
    constraints          jsonb NOT NULL,
    objectives           jsonb NOT NULL,
    num_trials           integer NOT NULL,
    proposer             text NOT NULL,
    seed                 bigint NOT NULL,
    extends              text CONSTRAINT fk_searches_extends_searches REFERENCES searches (id),
    known_evaluation_ids bigint[],
    CONSTRAINT uq_searches_job_id UNIQUE (job_id)
);
CREATE INDEX ix_searches_created_at_id ON searches (created_at, id);
CREATE INDEX ix_searches_supernet_id ON searches (supernet_id);

CREATE TABLE trials (
    search_id     text NOT NULL CONSTRAINT fk_trials_search_id_searches REFERENCES searches (id),
    number        integer NOT NULL,
    evaluation_id bigint NOT NULL
        CONSTRAINT fk_trials_evaluation_id_evaluations REFERENCES evaluations (id),
    round         integer NOT NULL,
    is_reused     boolean NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_trials PRIMARY KEY (search_id, number)
);
"""

SUBNETS = """
CREATE TABLE subnets (
    id                    text NOT NULL CONSTRAINT pk_subnets PRIMARY KEY,
    display_name          text NOT NULL,
    labels                jsonb NOT NULL,
    job_id                text NOT NULL CONSTRAINT fk_subnets_job_id_jobs REFERENCES jobs (id),
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    supernet_id           text NOT NULL
        CONSTRAINT fk_subnets_supernet_id_supernets REFERENCES supernets (id),
    architecture_key      text NOT NULL,
    architecture          jsonb NOT NULL,
    macs                  bigint NOT NULL,
    params                bigint NOT NULL,
    size_bytes            bigint NOT NULL,
    peak_activation_bytes bigint NOT NULL,
    evaluation_val_id     bigint
        CONSTRAINT fk_subnets_evaluation_val_id_evaluations REFERENCES evaluations (id),
    evaluation_test_id    bigint
        CONSTRAINT fk_subnets_evaluation_test_id_evaluations REFERENCES evaluations (id),
    published_at          timestamptz,
    CONSTRAINT uq_subnets_job_id UNIQUE (job_id)
);
CREATE INDEX ix_subnets_created_at_id ON subnets (created_at, id);
CREATE INDEX ix_subnets_supernet_id ON subnets (supernet_id);

CREATE TABLE artifacts (
    subnet_id  text NOT NULL CONSTRAINT fk_artifacts_subnet_id_subnets REFERENCES subnets (id),
    name       text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256     text NOT NULL,
    media_type text NOT NULL,
    uri        text NOT NULL,
    CONSTRAINT pk_artifacts PRIMARY KEY (subnet_id, name)
);
"""

IDEMPOTENCY_KEYS = """
CREATE TABLE idempotency_keys (
    owner       text NOT NULL,
    key         text NOT NULL,
    body_digest text NOT NULL,
    status      integer,
    response    jsonb,
    headers     jsonb,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (owner, key)
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);
"""

# Each refers only to those before it.
TABLES = (JOBS, DATASETS, SUPERNETS, EVALUATIONS, SEARCHES, SUBNETS, IDEMPOTENCY_KEYS)


def upgrade() -> None:
    for statements in TABLES:
        op.execute(statements)


def downgrade() -> None:
    op.execute(
        "DROP TABLE idempotency_keys, artifacts, subnets, trials, searches, evaluations, "
        "training_points, supernets, datasets, job_events, jobs"
    )

"""The composition root: the one place where settings become objects and everything meets."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from functools import cache
from secrets import token_hex

import ray
from ray.exceptions import RayError

from nas.job import JobKind
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.jobs import JobQueue
from workers.datasets import DatasetImport, dataset_reference
from workers.evaluation_job import EvaluationJob
from workers.evaluation_pool import RayEvaluator
from workers.latency_jobs import LatencyFit, WorkFileJob
from workers.leftovers import Leftovers
from workers.open_evaluator import EvaluatorFactory, KeptEvaluator, OpenEvaluator, Releasing
from workers.search_job import SearchJob
from workers.service import JobRunner, WorkerService
from workers.settings import WorkerSettings
from workers.specialise_job import SpecialiseJob
from workers.trained import TrainedSupernet
from workers.training_job import TrainingJob
from workers.verify_job import VerifyJob
from workers.weights import fetch_weights

logger = logging.getLogger(__name__)

_RAY_QUIET = {
    # Never send anything about the user's machine anywhere.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Actors say what they have to say through their results.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # What trainings under Tune come to is told by rows, not by files and boxes on stdout.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def build_service(settings: WorkerSettings, database: Database) -> WorkerService:
    """A worker that can do every kind of job; whoever opened the database closes it."""
    artifacts = ArtifactStore(settings.artifact_url)
    kept = KeptEvaluator(_evaluator_factory(settings, database, artifacts), keep_s=settings.keep_evaluators_s)
    runners: dict[JobKind, JobRunner] = {
        JobKind.IMPORT_DATASET: DatasetImport(database, artifacts, settings.home),
        JobKind.TRAIN: TrainingJob(
            database,
            artifacts,
            settings.home,
            num_threads=settings.num_threads,
            device=settings.device,
            ensure_ray=lambda: ensure_ray(settings.num_evaluators),
        ),
        JobKind.SEARCH: SearchJob(database, open_evaluator=kept.open, device=settings.device),
        JobKind.EVALUATE: EvaluationJob(database, open_evaluator=kept.open),
        JobKind.MAKE_WORK_FILE: WorkFileJob(database, artifacts, settings.home),
        JobKind.FIT_LATENCY: LatencyFit(database),
        JobKind.SPECIALISE: SpecialiseJob(
            database,
            artifacts,
            settings.home,
            num_threads=settings.num_threads,
            public_url=settings.public_url,
            max_images_in_zip_bytes=settings.max_images_in_zip_bytes,
        ),
        JobKind.VERIFY: VerifyJob(
            database,
            artifacts,
            settings.home,
            num_threads=settings.num_threads,
            num_at_once=settings.num_evaluators,
            device=settings.device,
            ensure_ray=lambda: ensure_ray(settings.num_evaluators),
        ),
    }
    for kind in (JobKind.IMPORT_DATASET, JobKind.TRAIN, JobKind.SPECIALISE, JobKind.VERIFY):
        runners[kind] = Releasing(runners[kind], kept.release)
    queue = JobQueue(database)
    leftovers = Leftovers(queue, database, artifacts, settings.home)
    return WorkerService(
        queue,
        runners,
        lease_s=settings.lease_s,
        poll_s=settings.poll_s,
        tidy=leftovers.remove,
        let_go=kept.release,
    )


def ensure_ray(num_cpus_needed: int = 1) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start a local Ray that lives as long as this process."""
    if ray.is_initialized():
        if _is_here():
            return
        # Its part on this machine has died, and whatever ran there; this process is connected to nothing.
        logger.warning("Ray has died on this machine; it is started again")
        ray.shutdown()
    os.environ.update({name: os.environ.get(name, value) for name, value in _RAY_QUIET.items()})
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, configure_logging=False)
    else:
        # Actors that measure are counted as a CPU each: with fewer CPUs some would never start.
        num_cpus = max(os.cpu_count() or 1, num_cpus_needed)
        _lock_local_ray()
        ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, configure_logging=False)
    # Ray takes the signals for itself; a worker that is told to stop has a job to give back first.
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _is_here() -> bool:
    try:
        node_id = ray.get_runtime_context().get_node_id()
        return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
    except RayError:
        return False


def _lock_local_ray() -> None:
    """Have the local Ray take commands from this process and its children alone.

    Ray listens on every interface and cannot be told otherwise, and whoever reaches it may run anything.
    So every call must carry a token, which lives in the environment: left to itself Ray would write one
    to the user's home, for all clusters and readable by others.
    """
    os.environ["RAY_AUTH_TOKEN"] = _token()
    # Unset means token authentication, and is the one spelling that Ray still heeds after its import.
    os.environ.pop("RAY_AUTH_MODE", None)


@cache
def _token() -> str:
    """One for this process: Ray keeps the first that it has seen, also for a cluster started after it."""
    return token_hex(32)


def _evaluator_factory(
    settings: WorkerSettings, database: Database, artifacts: ArtifactStore
) -> EvaluatorFactory:
    def open_evaluator(trained: TrainedSupernet, check: Callable[[], None]) -> OpenEvaluator:
        ensure_ray(settings.num_evaluators)
        pool = RayEvaluator(
            trained.description,
            fetch_weights(artifacts, trained.weights_uri, trained.checkpoint),
            checkpoint=trained.checkpoint,
            data=dataset_reference(database, artifacts, settings.home, trained.row.dataset_id),
            num_actors=settings.num_evaluators,
            device=settings.device,
            check=check,
        )
        return OpenEvaluator(evaluator=pool, close=pool.close)

    return open_evaluator

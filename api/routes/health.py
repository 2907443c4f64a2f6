"""/healthz, /readyz, /version: alive; able to work; what."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from fastapi import APIRouter

from api.deps import ServicesDep
from api.problems import ProblemError
from api.readiness import is_schema_current
from api.schemas.common import AnswerModel
from api.strict import StrictRoute

router = APIRouter(tags=["health"], route_class=StrictRoute)


class Health(AnswerModel):
    """A good answer; a bad one is a problem."""

    status: Literal["ok"] = "ok"


class Version(AnswerModel):
    """What is running."""

    version: str
    api: Literal["v1"] = "v1"


@router.get("/healthz", operation_id="get_health")
async def get_health() -> Health:
    """Whether the process answers; it asks nobody else."""
    return Health()


@router.get("/readyz", operation_id="get_readiness")
def get_readiness(services: ServicesDep) -> Health:
    """Whether requests can be served: the database answers, and its schema is the newest."""
    services.database.check()
    if not is_schema_current(services.database):
        detail = "the database's schema is not the one this version knows; start the version that made it"
        raise ProblemError("schema-not-current", 503, detail)
    return Health()


@router.get("/version", operation_id="get_version")
def get_version() -> Version:
    """Which release this is."""
    try:
        return Version(version=version("nas-service"))
    except PackageNotFoundError:
        return Version(version="unknown: not installed as a package")

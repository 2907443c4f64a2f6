"""The application, made by a call: nothing happens when this module is imported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool

from api.feasibility import warm_certificates
from api.hosts import LoopbackHostMiddleware
from api.openapi import build_openapi
from api.problems import install_problem_handlers
from api.routes import (
    datasets,
    devices,
    evaluation_batches,
    frontiers,
    health,
    jobs,
    search_spaces,
    searches,
    subnets,
    supernets,
    uploads,
    verifications,
    work_files,
)
from api.services import Services
from api.settings import ApiSettings
from api.warm_answers import warmed_answers
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database, migrate

_RESOURCES = (
    uploads,
    datasets,
    search_spaces,
    supernets,
    frontiers,
    evaluation_batches,
    searches,
    subnets,
    verifications,
    devices,
    work_files,
    jobs,
)


def create_app(settings: ApiSettings) -> FastAPI:
    """The service on this database and artefact store; both are opened when it starts."""
    app = FastAPI(
        title="Neural architecture search",
        summary="Train one weight-shared supernet, then ask for the best network under any budget.",
        version="v1",
        lifespan=_lifespan(settings),
        # A redirect would answer a POST with the wrong path by repeating it elsewhere.
        redirect_slashes=False,
        redoc_url=None,
    )
    install_problem_handlers(app)
    app.add_middleware(LoopbackHostMiddleware)
    resources = APIRouter(prefix="/v1")
    for resource in _RESOURCES:
        resources.include_router(resource.router)
    app.include_router(resources)
    app.include_router(health.router)
    # FastAPI's own way to replace the document it would generate.
    app.openapi = partial(build_openapi, app)  # type: ignore[method-assign]
    return app


def _lifespan(settings: ApiSettings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(migrate, settings.database_url)
        services = Services(
            Database(settings.database_url), ArtifactStore(settings.artifact_url), settings.max_upload_bytes
        )
        app.state.services = services
        await run_in_threadpool(warm_certificates, services)
        with warmed_answers(services), services.tables, closing(services.certificates):
            yield
        services.database.dispose()

    return lifespan

"""`python -m api`: serve until told to stop."""

from __future__ import annotations

import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from api.app import create_app
from api.settings import ApiSettings
from nas.errors import NasError
from nas.logs import configure_logging
from nas.store.database import Database

_GRACE_S = 10


class Server(uvicorn.Server):
    """A server that ends event streams when told to stop: they would hold it until their jobs end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; the loop sees it at its next turn."""
        services = getattr(self.app.state, "services", None)
        if services is not None:
            services.stopping.set()
        super().handle_exit(sig, frame)


def make_server(settings: ApiSettings) -> Server:
    """One process on the settings' address."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
        # Uvicorn's own loggers then pass their lines on to ours.
        log_config=None,
    )
    return Server(config, app)


def main() -> int:
    """Exit code 2 for settings that cannot be used, 1 when the service did not start."""
    configure_logging()
    try:
        settings = ApiSettings()
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"])).upper()
            sys.stderr.write(f"NAS_{name}: {problem['msg']}\n")
        return 2
    try:
        _check_database(settings)
    except NasError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    server = make_server(settings)
    server.run()
    return 0 if server.started else 1


def _check_database(settings: ApiSettings) -> None:
    """Found missing here, it is told in a sentence; found in the lifespan, in a traceback."""
    database = Database(settings.database_url)
    try:
        database.check()
    finally:
        database.dispose()


if __name__ == "__main__":
    sys.exit(main())

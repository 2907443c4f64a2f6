"""`python -m workers`: one worker process, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from pydantic import ValidationError

from nas.errors import NasError
from nas.logs import configure_logging
from nas.store.database import Database, migrate
from workers.settings import WorkerSettings
from workers.wiring import build_service


def main() -> int:
    """Run until told to stop; 0 after a clean stop, 1 when it cannot start."""
    configure_logging()
    try:
        settings = WorkerSettings()
        migrate(settings.database_url)
        database = Database(settings.database_url)
        service = build_service(settings, database)
    except ValidationError as error:
        fields = "; ".join(f"NAS_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        logging.error("the worker's settings are not complete: %s", fields)
        return 1
    except NasError as error:
        logging.error("the worker cannot start: %s", error)
        return 1

    def drain(number: int, frame: FrameType | None) -> None:
        del number, frame
        service.drain()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    try:
        service.run()
    finally:
        database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What answers by latency are found among is read when the service starts, ahead of the first question."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from api.problems import ProblemError
from api.services import Services
from api.trained import trained_supernet
from nas.errors import NasError
from nas.store import devices, supernets

_MAX_SUPERNETS = 8
_MAX_DEVICES = 4
"""Newest first, as many as are kept of one supernet."""

logger = logging.getLogger(__name__)


@contextmanager
def warmed_answers(services: Services) -> Iterator[threading.Thread]:
    """Reads and predicts in the background, supernet by supernet; the end of the context ends that too."""
    stop = threading.Event()
    thread = threading.Thread(target=_warm, args=(services, stop), name="answers-warm", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


def _warm(services: Services, stop: threading.Event) -> None:
    try:
        with services.database.session() as session:
            newest = supernets.list(session, page_size=_MAX_SUPERNETS)
            found = [
                (supernet.row.id, device.id)
                for supernet in newest
                for device in reversed(devices.list(session, page_size=_MAX_DEVICES))
            ]
        for supernet_id, device in found:
            if stop.is_set():
                return
            _read(services, supernet_id, device)
    except SQLAlchemyError as error:
        # Whoever asks first is told of it; until then there is nobody to tell.
        logger.info("answers by latency were not read ahead: %s", error)


def _read(services: Services, supernet_id: str, device: str) -> None:
    with services.database.session() as session:
        try:
            supernet = trained_supernet(session, supernet_id).on_device(session, device)
            assert supernet.device is not None
            services.known.of(session, supernet, supernet.device)
        except (NasError, ProblemError, KeyError):
            # Not trained, a space that is no more, a device without a model: whoever asks is told so.
            return

"""The tables that certificates need of a new supernet's space are made while it is trained."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from sqlalchemy.exc import SQLAlchemyError

from api.certificates import CertificateProcesses
from nas.errors import NotFoundError
from nas.search.cost_model import SpaceCosts
from nas.store import datasets
from nas.store.database import Database
from search_spaces import SPACES

_POLL_S = 2.0
"""How often a data set is looked at whose import is waited for."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """Tables of a space, for the images of a data set."""

    search_space: str
    dataset_id: str


class TableWarmer:
    """Has them made in the background, one after the other; a context in which that goes on.

    Nobody waits for it and nobody is told when it fails: whoever asks first is answered all the same, later.
    """

    def __init__(self, database: Database, certificates: CertificateProcesses) -> None:
        self._database = database
        self._certificates = certificates
        self._queue: SimpleQueue[_Wanted | None] = SimpleQueue()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tables-warm", daemon=True)

    def __enter__(self) -> TableWarmer:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """End it. Where certificates are closed by now, there is no waiting for what is being made."""
        self._is_over.set()
        self._queue.put(None)
        self._thread.join()

    def want(self, *, search_space: str, dataset_id: str) -> None:
        """Have them made once the images are known, by whose classes and channels costs are counted."""
        self._queue.put(_Wanted(search_space, dataset_id))

    def _work(self) -> None:
        pending: dict[_Wanted, None] = {}
        while not self._is_over.is_set():
            for each in self._news(is_any_pending=bool(pending)):
                pending[each] = None
            pending = {each: None for each in pending if not self._is_settled(each)}

    def _news(self, *, is_any_pending: bool) -> list[_Wanted]:
        """What was wanted meanwhile; waits for it, not for long where something else is pending."""
        try:
            news = [self._queue.get(timeout=_POLL_S if is_any_pending else None)]
            while not self._queue.empty():
                news.append(self._queue.get())
        except Empty:
            return []
        return [wanted for wanted in news if wanted is not None]

    def _is_settled(self, wanted: _Wanted) -> bool:
        """Whether no more is to be done: the tables are made, or will never be wanted."""
        if self._is_over.is_set():
            return True
        try:
            with self._database.session() as session:
                found = datasets.get(session, wanted.dataset_id)
                num_classes, in_channels = found.row.num_classes, found.row.in_channels
                is_over = found.job.state.is_terminal
            if num_classes is None or in_channels is None:
                return is_over
            space = SPACES[wanted.search_space]
            self._certificates.make_tables(
                SpaceCosts(space=space, num_classes=num_classes, in_channels=in_channels)
            )
        except SQLAlchemyError as error:
            logger.info("whether images are imported is not known: %s", error)
            return False
        except (NotFoundError, RuntimeError) as error:
            logger.info("tables of space %s were not made ahead: %s", wanted.search_space, error)
        return True

"""What the handlers share: one object, made when the service starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property

from api.certificates import CertificateProcesses
from api.known import KnownNetworks
from api.warm_tables import TableWarmer
from nas.store.artifacts import ArtifactStore
from nas.store.database import Database
from nas.store.jobs import JobQueue


@dataclass(frozen=True)
class Services:
    """The store, opened. `stopping` is set when the server is told to end, so that streams end too."""

    database: Database
    artifacts: ArtifactStore
    max_upload_bytes: int
    certificates: CertificateProcesses = field(default_factory=CertificateProcesses)
    known: KnownNetworks = field(default_factory=KnownNetworks)
    """What answers by latency are found among."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @cached_property
    def tables(self) -> TableWarmer:
        """Of new supernets' spaces, made ahead."""
        return TableWarmer(self.database, self.certificates)

    @property
    def queue(self) -> JobQueue:
        """The jobs."""
        return JobQueue(self.database)

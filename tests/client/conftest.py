"""The service of tests/api, with its played worker."""

from tests.api.conftest import (
    artifact_store,
    client,
    search,
    service_url,
    subnet,
    supernet,
    untrained,
    worker,
)

__all__ = ["artifact_store", "client", "search", "service_url", "subnet", "supernet", "untrained", "worker"]

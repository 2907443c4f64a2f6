"""The Python client: `Client(url)`, its collections, and what they return and raise."""

from nas.client.client import Client
from nas.client.errors import (
    ApiError,
    ClientError,
    DownloadError,
    InfeasibleConstraintsError,
    JobCancelledError,
    JobFailedError,
    NoNetworkWithinBoundsError,
    NotReadyError,
    RequestRefusedError,
    ResourceNotFoundError,
    ServiceUnavailableError,
    StateConflictError,
    UnknownArchitectureError,
    WaitTimeoutError,
)
from nas.client.events import Event
from nas.client.resources import Dataset, Job, Point, Resource, Search, Subnet, Supernet

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "Dataset",
    "DownloadError",
    "Event",
    "InfeasibleConstraintsError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "NoNetworkWithinBoundsError",
    "NotReadyError",
    "Point",
    "RequestRefusedError",
    "Resource",
    "ResourceNotFoundError",
    "Search",
    "ServiceUnavailableError",
    "StateConflictError",
    "Subnet",
    "Supernet",
    "UnknownArchitectureError",
    "WaitTimeoutError",
]

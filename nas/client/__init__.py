"""The Python client: `Client(url)` or `AsyncClient(url)`, what they return and what they raise."""

from nas.client.asynchronous.client import AsyncClient
from nas.client.asynchronous.resources import (
    AsyncDataset,
    AsyncJob,
    AsyncPoint,
    AsyncProduct,
    AsyncResource,
    AsyncSearch,
    AsyncSubnet,
    AsyncSupernet,
)
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
    UnsendableRequestError,
    WaitTimeoutError,
)
from nas.client.event import Event
from nas.client.frontier import Frontier
from nas.client.resources import Dataset, Job, Point, Product, Resource, Search, Subnet, Supernet

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncDataset",
    "AsyncJob",
    "AsyncPoint",
    "AsyncProduct",
    "AsyncResource",
    "AsyncSearch",
    "AsyncSubnet",
    "AsyncSupernet",
    "Client",
    "ClientError",
    "Dataset",
    "DownloadError",
    "Event",
    "Frontier",
    "InfeasibleConstraintsError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "NoNetworkWithinBoundsError",
    "NotReadyError",
    "Point",
    "Product",
    "RequestRefusedError",
    "Resource",
    "ResourceNotFoundError",
    "Search",
    "ServiceUnavailableError",
    "StateConflictError",
    "Subnet",
    "Supernet",
    "UnknownArchitectureError",
    "UnsendableRequestError",
    "WaitTimeoutError",
]

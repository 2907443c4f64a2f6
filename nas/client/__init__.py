"""The Python client: `Client(url)` or `AsyncClient(url)`, what they return and what they raise."""

from nas.client.asynchronous.client import AsyncClient
from nas.client.asynchronous.resource import AsyncJob, AsyncProduct, AsyncResource
from nas.client.asynchronous.resources import (
    AsyncDataset,
    AsyncEvaluationBatch,
    AsyncEvaluationItem,
    AsyncPoint,
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
    NotMeasuredError,
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
from nas.client.resource import Job, Product, Resource
from nas.client.resources import (
    Dataset,
    EvaluationBatch,
    EvaluationItem,
    Point,
    Search,
    Subnet,
    Supernet,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncDataset",
    "AsyncEvaluationBatch",
    "AsyncEvaluationItem",
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
    "EvaluationBatch",
    "EvaluationItem",
    "Event",
    "Frontier",
    "InfeasibleConstraintsError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "NoNetworkWithinBoundsError",
    "NotMeasuredError",
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

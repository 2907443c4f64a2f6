"""What the client raises: the service's problems by their types, and what goes wrong on this side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.errors import NasError


class ClientError(NasError):
    """Anything the client raises."""


class ServiceUnavailableError(ClientError):
    """The service, or the database behind it, did not answer after several tries."""


class JobFailedError(ClientError):
    """The job ended `failed`; the message is its error."""


class JobCancelledError(ClientError):
    """The job ended `cancelled`."""


class WaitTimeoutError(ClientError, TimeoutError):
    """The job still goes on; waiting for it ended."""


class DownloadError(ClientError):
    """The bytes that came are not those that were promised."""


class NotMeasuredError(ClientError):
    """The network has no accuracy: it breaks a constraint, or its batch has not come to it."""


class UnsendableRequestError(ClientError, ValueError):
    """The URL or the key can be no service's, or the request holds what JSON cannot say; nothing was sent."""


class ApiError(ClientError):
    """The service refused; `problem` is the whole of its answer."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or problem))
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.problem["status"])

    @property
    def slug(self) -> str:
        """The problem's type, without its path: `not-found`."""
        return str(self.problem["type"]).rpartition("/")[2]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What is wrong with which field, where the problem says so."""
        return list(self.problem.get("errors") or [])


class RequestRefusedError(ApiError):
    """The request itself is wrong."""


class UnknownArchitectureError(RequestRefusedError):
    """No network of the space is described."""


class InfeasibleConstraintsError(RequestRefusedError):
    """It is proved that no network keeps the constraints; each of these is None where it was not found."""

    @property
    def nearest(self) -> Mapping[str, Any] | None:
        """The network that minimises the largest ratio of cost to bound: architecture and costs."""
        return self.problem.get("nearest")

    @property
    def relax(self) -> Mapping[str, float] | None:
        """Bounds that are kept taken together."""
        return self.problem.get("relax")

    @property
    def relax_alone(self) -> Mapping[str, float | None] | None:
        """By bound, the least value that is kept beside the others as they are; None: there is none."""
        return self.problem.get("relax_alone")


class ResourceNotFoundError(ApiError):
    """No such resource."""


class NoNetworkWithinBoundsError(ApiError):
    """Nothing measured keeps the bounds; `nearest` does so best, and `relax` is what it needs."""

    @property
    def nearest(self) -> Mapping[str, Any]:
        """The measured network that exceeds the bounds least."""
        nearest: Mapping[str, Any] = self.problem["nearest"]
        return nearest

    @property
    def relax(self) -> Mapping[str, float]:
        """Bounds, taken together, that would let it in."""
        relax: Mapping[str, float] = self.problem["relax"]
        return relax


class StateConflictError(ApiError):
    """The resource is in a state that does not allow it."""


class NotReadyError(StateConflictError):
    """What the request builds on is not finished, or has failed."""


_BY_SLUG: Mapping[str, type[ApiError]] = {
    "unknown-architecture": UnknownArchitectureError,
    "infeasible-constraints": InfeasibleConstraintsError,
    "no-network-within-bounds": NoNetworkWithinBoundsError,
    "dataset-not-ready": NotReadyError,
    "supernet-not-ready": NotReadyError,
    "subnet-not-ready": NotReadyError,
    "work-file-not-ready": NotReadyError,
    "device-not-ready": NotReadyError,
}

_BY_STATUS: Mapping[int, type[ApiError]] = {
    404: ResourceNotFoundError,
    409: StateConflictError,
    413: RequestRefusedError,
    415: RequestRefusedError,
    422: RequestRefusedError,
}


def error_from(problem: Mapping[str, Any]) -> ApiError:
    """The exception for a problem; a type this version does not know falls back to its status."""
    slug = str(problem.get("type", "")).rpartition("/")[2]
    kind = _BY_SLUG.get(slug) or _BY_STATUS.get(int(problem.get("status", 0)), ApiError)
    return kind(problem)

"""The error tree. Every message names the offender, what is allowed, and the remedy."""


class NasError(Exception):
    """Something the user or an operator can mend; the message says how."""


class InvalidArchitectureError(NasError, ValueError):
    """A description that names no network of the space."""


class InvalidRequestError(NasError, ValueError):
    """A request, recipe or constraint with an impossible value."""


class UnknownNameError(NasError, LookupError):
    """A name that is not in its closed list."""


class NotFoundError(NasError, LookupError):
    """No such resource."""


class ConflictError(NasError):
    """The request meets a resource in a state that does not allow it."""


class LeaseLostError(NasError):
    """The job now belongs to another worker: nothing may be written for it any more."""


class DatasetError(NasError, ValueError):
    """Images or labels that cannot be read, or cannot be trained on."""


class ArtifactError(NasError):
    """A bundle that does not reproduce the supernet's figures, or bytes that are missing or changed."""


class EmbeddedPostgresError(NasError, RuntimeError):
    """The embedded PostgreSQL server could not be found, started or stopped."""

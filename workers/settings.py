"""What a worker reads from its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from supernet.device import AUTO
from supernet.export.bundle import MAX_IMAGES_IN_ZIP_BYTES


class WorkerSettings(BaseSettings):
    """Every field is an environment variable with the prefix NAS_."""

    model_config = SettingsConfigDict(env_prefix="NAS_", extra="ignore")

    database_url: str
    """PostgreSQL; `nas serve` fills in the embedded server's."""
    artifact_url: str
    """Where weights and bundles go: a folder, or any URL fsspec understands."""
    home: Path
    """Scratch of this machine: decoded data sets and training checkpoints. Losing it costs time only."""
    num_threads: int = Field(default=2, ge=1)
    """Threads of a training in one process; resume is exact only with the same number."""
    device: str = Field(default=AUTO, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """What training and searches compute on; auto: CUDA where there is a GPU. What is published is always
    measured on the processor."""
    num_evaluators: int = Field(default=2, ge=1)
    """Single-threaded Ray processes that measure networks during a search, or train some to verify them."""
    keep_evaluators_s: float = Field(default=30.0, ge=0)
    """How long these stay after a job, for a next one of the same supernet; 0 ends them at once."""
    lease_s: float = Field(default=20.0, ge=1)
    """A worker that is silent this long has lost its job."""
    poll_s: float = Field(default=1.0, gt=0)
    """How often an idle worker looks for a job."""
    public_url: str = Field(default="", pattern=r"^(https?://[^/\s]+)?$")
    """Where users reach the service, such as http://127.0.0.1:8080: cards tell it with what is left out of
    the zip. Empty: they tell the path alone."""
    max_images_in_zip_bytes: int = Field(default=MAX_IMAGES_IN_ZIP_BYTES, ge=0)
    """The images that a network is verified on lie beside its zip, not in it, where they are larger."""

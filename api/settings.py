"""What the API reads from its environment."""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ApiSettings(BaseSettings):
    """Every field is an environment variable with the prefix NAS_."""

    model_config = SettingsConfigDict(env_prefix="NAS_", extra="ignore", frozen=True)

    database_url: str
    """PostgreSQL; `nas serve` fills in the embedded server's."""
    artifact_url: str
    """Where weights and bundles lie: a folder, or any URL fsspec understands."""
    host: str = "127.0.0.1"
    """The address to listen on; loopback only."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 lets the system choose."""
    max_upload_bytes: int = Field(default=4 << 30, ge=1)
    """The largest file that POST /v1/uploads takes; 4 GiB unless told otherwise."""

    @field_validator("host")
    @classmethod
    def _is_loopback(cls, host: str) -> str:
        # Whoever reaches the port may do everything, so nobody else must reach it.
        if not _names_loopback(host):
            raise ValueError(
                f"NAS_HOST {host!r} is not a loopback address, and this service has no API keys yet: "
                "anyone on the network could use it; listen on 127.0.0.1 and put a proxy that "
                "authenticates in front, or use a tunnel"
            )
        return host


def _names_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

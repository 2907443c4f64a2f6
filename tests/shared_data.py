"""Real tables and images that lie beside the repository where it is developed; users do not have them."""

from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """The file or folder of that name, or the test is skipped with a message."""
    path = _FOLDER / name
    if not path.exists():
        pytest.skip(f"needs ../shared/data/{name}, which only developers of this project have")
    return path

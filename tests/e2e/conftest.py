"""Homes for `nas serve`, each emptied of processes and files at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.service import Home


@pytest.fixture
def home(tmp_path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.remove()

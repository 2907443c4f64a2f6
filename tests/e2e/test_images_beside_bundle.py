"""Images too large for a bundle's zip: whoever has the zip alone verifies it over the service's real port."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import QUICK, Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def unzipped(home: Home, tmp_path) -> Iterator[Path]:
    """What the zip holds, its images left at the service, which runs."""
    serving = home.start(settings={**QUICK, "NAS_MAX_IMAGES_IN_ZIP_BYTES": "1000"})
    serving.wait_ready()
    with home.client() as client:
        dataset = client.datasets.create({"kind": "bundled", "name": "digits"})
        supernet = client.supernets.create(dataset.id, "micro_8", recipe={"epochs": 1, "batch_size": 128})
        search = client.searches.create(supernet.wait(timeout=120).id, 1).wait(timeout=120)
        subnet = client.subnets.create(search_id=search.id, trial_number=0).wait(timeout=120)
        subnet.download(tmp_path / "all")
    with zipfile.ZipFile(tmp_path / "all" / "bundle.zip") as bundle:
        bundle.extractall(tmp_path / "unzipped")
    yield tmp_path / "unzipped"
    serving.interrupt()
    assert serving.wait_exit(timeout_s=30) == 130


def verify(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "verify.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_the_card_says_where_they_are_and_verify_fetches_them_there(home, unzipped):
    assert not (unzipped / "check.npz").exists()
    card = json.loads((unzipped / "card.json").read_text())
    where = card["verification"]["images"]["where"]
    assert where.startswith(f"{home.url}/v1/subnets/")
    by_card = verify(unzipped)
    assert by_card.returncode == 0, by_card.stdout + by_card.stderr
    assert f"downloading {where}" in by_card.stdout
    by_url = verify(unzipped, "--images", where)
    assert by_url.returncode == 0, by_url.stdout + by_url.stderr
    another = verify(unzipped, "--images", where.replace("check.npz", "model.onnx"))
    assert another.returncode == 1
    assert "check.npz is not the published file" in another.stdout
    nowhere = verify(unzipped, "--images", f"{home.url}/v1/subnets/none/artifacts/check.npz")
    assert nowhere.returncode == 1
    assert "cannot be downloaded: HTTP Error 404" in nowhere.stdout
    assert "Traceback" not in nowhere.stderr

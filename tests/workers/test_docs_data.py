"""docs/data.md: every block runs, against the real service and a real worker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.settings import ApiSettings
from nas.client import Client
from nas.job import JobState
from tests.api.conftest import running

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


@pytest.mark.slow
def test_every_block_of_the_page_registers_images_that_can_be_imported(site, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = ApiSettings(database_url=site.url, artifact_url=str(site.home / "artifacts"), port=0)
    with running(settings) as (_, url), Client(url) as client:
        names = {"client": client}
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name} block {number}", "exec"), names)
        made = list(client.datasets.list())
        # One for each kind but the bundled, which needs no page, and an archive twice.
        assert len(made) == 6
        site.work([dataset["job_id"] for dataset in made])
        of_class_folders = set()
        for dataset in client.datasets.list():
            assert dataset["state"] == JobState.SUCCEEDED, dataset["error"]
            assert sum(dataset["counts"][split] for split in ("train", "val", "test")) == 90
            if dataset["spec"]["source"]["kind"] in ("folder", "archive"):
                of_class_folders.add(dataset["fingerprint"])
        assert len(of_class_folders) == 1

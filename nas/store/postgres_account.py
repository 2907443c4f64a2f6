"""Under which account the embedded server runs, and where its files may lie.

PostgreSQL refuses to run as root. Then it runs as the account `nobody`, which every system has, in a
folder of our own: no account is created, and no mode or owner outside that folder changes.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import EmbeddedPostgresError

ROOT_FOLDER = Path("/var/lib/nas-postgres")
_ACCOUNT = "nobody"
_SOCKET_PATH_LIMIT = 107
_SOCKET_NAME = ".s.PGSQL.5432.lock"


@dataclass(frozen=True)
class Account:
    """An account as `subprocess` takes it; our own where `switch` is false."""

    uid: int
    gid: int
    switch: bool

    def subprocess_options(self) -> dict[str, Any]:
        """Keyword arguments that make a child run under this account, and no other group."""
        if not self.switch:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account() -> Account:
    """Our own account; `nobody` for root."""
    if os.geteuid() != 0:
        _check_named(os.geteuid())
        return Account(os.geteuid(), os.getegid(), switch=False)
    try:
        entry = pwd.getpwnam(_ACCOUNT)
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and there is no account {_ACCOUNT!r} to run it under; "
            "start as an ordinary user, or set NAS_DATABASE_URL to a server of your own"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def _check_named(uid: int) -> None:
    # Containers run under bare numbers; PostgreSQL wants a name to each.
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"uid {uid} has no name among the system's accounts, and PostgreSQL needs one; "
            "run under a named account, or set NAS_DATABASE_URL to a server of your own"
        ) from None


def server_folder(home: Path, account: Account) -> Path:
    """Where the cluster of `home` lies: within it, but for root in a folder that `nobody` can enter."""
    home = home.resolve()
    if not account.switch:
        return home / "postgres"
    return ROOT_FOLDER / _digest(home / _identity(home))


def _identity(home: Path) -> str:
    """A word kept in `home`: a home that was deleted and made again must not find the old one's cluster."""
    kept = home / "postgres.id"
    if not kept.exists():
        home.mkdir(parents=True, exist_ok=True)
        fresh = home / f".postgres.id.{secrets.token_hex(4)}"
        fresh.write_text(secrets.token_hex(8))
        # Linked, not renamed: of two processes that start at once, the first one's word stands.
        with suppress(FileExistsError):
            os.link(fresh, kept)
        fresh.unlink()
    return kept.read_text()


def make_root_folder() -> None:
    """Make the folder that holds root's clusters and programs; its owner alone may add to it."""
    ROOT_FOLDER.mkdir(mode=0o755, exist_ok=True)
    found = ROOT_FOLDER.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise EmbeddedPostgresError(f"{ROOT_FOLDER} must be a folder that only root may write to")
    # A strict umask would hide it from the account that must enter it.
    ROOT_FOLDER.chmod(0o755)


def make_private_folder(folder: Path, account: Account) -> None:
    """Make `folder` with mode 0700 for the account; refuse one that belongs to somebody else."""
    try:
        folder.mkdir(mode=0o700)
        if account.switch:
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as error:
        raise EmbeddedPostgresError(f"{folder} cannot be made for the database server: {error}") from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise EmbeddedPostgresError(
            f"{folder} must be a folder of mode 0700 owned by uid {account.uid}; move it away or mend it"
        )


def socket_folder(folder: Path) -> Path:
    """Where the server of `folder` listens: within it, or under the temporary folder if that is too long."""
    within = folder / "socket"
    if len(os.fsencode(within / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
        return within
    return Path(tempfile.gettempdir()) / f"nas-{os.geteuid()}-{_digest(folder)}"


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]

# Made by `python -m nas.client.derive` from nas/client/asynchronous/download.py: change that one.
"""Files fetched whole: resumed where they were cut, and kept only when their SHA-256 is the one promised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from nas.client.concurrency import beside, sleep
from nas.client.errors import DownloadError, ServiceUnavailableError
from nas.client.messages import retry_pauses_s
from nas.client.transport import Transport

_SILENCE_S = 60.0
_AS_IT_IS = {"Accept": "*/*", "Accept-Encoding": "identity"}


def fetch(transport: Transport, artifact: Mapping[str, Any], folder: Path) -> Path:
    """The artefact as a file of its name in `folder`; nothing is fetched when it is there already."""
    name = str(artifact["name"])
    # The name comes from outside, and must not lead out of the folder.
    if Path(name).name != name or name in ("", ".", ".."):
        raise DownloadError(f"the service offers a file named {name!r}, which is no plain file name")
    target = folder / name
    if target.exists() and beside(_sha256, target) == artifact["sha256"]:
        return target
    part = target.with_name(f"{name}.part")
    _fetch_part(transport, artifact, part)
    if beside(_sha256, part) != artifact["sha256"]:
        part.unlink()
        raise DownloadError(
            f"{name} arrived changed: its SHA-256 is not {artifact['sha256']}; fetch it again"
        )
    part.replace(target)
    return target


def save(transport: Transport, path: str, target: Path) -> Path:
    """What the service sends for the path, as the file `target`: whole, or not at all."""
    part = target.with_name(f"{target.name}.part")
    last = ""
    for pause_s in retry_pauses_s():
        try:
            with transport.stream(path, _AS_IT_IS, read_timeout_s=_SILENCE_S) as response:
                _write(response, part)
        except httpx.TransportError as error:
            last = str(error)
            sleep(pause_s)
        else:
            return part.replace(target)
    raise ServiceUnavailableError(f"{path} breaks off again and again: {last}; fetch it again")


def _write(response: httpx.Response, part: Path) -> None:
    with part.open("wb") as file:
        for chunk in response.iter_raw():
            file.write(chunk)


def _fetch_part(transport: Transport, artifact: Mapping[str, Any], part: Path) -> None:
    pauses = retry_pauses_s()
    while (num_held := part.stat().st_size if part.exists() else 0) < artifact[
        "size_bytes"
    ] or not part.exists():
        try:
            _append(transport, artifact, part, num_held)
        except httpx.TransportError as error:
            if part.exists() and part.stat().st_size > num_held:
                pauses = retry_pauses_s()
            pause_s = next(pauses, None)
            if pause_s is None:
                raise ServiceUnavailableError(
                    f"{artifact['name']} breaks off at {num_held} bytes again and again: {error}; "
                    "fetch it again to go on from there"
                ) from error
            sleep(pause_s)


def _append(transport: Transport, artifact: Mapping[str, Any], part: Path, num_held: int) -> None:
    headers = dict(_AS_IT_IS)
    if num_held:
        # If-Range: other bytes under this name come whole, and do not end up behind the old ones.
        headers |= {"Range": f"bytes={num_held}-", "If-Range": f'"{artifact["sha256"]}"'}
    path = artifact["links"]["self"]
    with transport.stream(path, headers, read_timeout_s=_SILENCE_S) as response:
        is_rest = response.status_code == httpx.codes.PARTIAL_CONTENT
        with part.open("ab" if is_rest else "wb") as file:
            # As they come: a chunk of a fixed size would be lost, half full, when the connection is cut.
            # And written here, not in a thread: whoever is cancelled in between leaves whole chunks only.
            for chunk in response.iter_raw():
                file.write(chunk)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

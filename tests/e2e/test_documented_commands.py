"""Every command that README and docs show works: run as shown, in the documents' own order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nas.client import Client
from nas.job import JobState
from tests.e2e.documents import (
    COMMENT,
    DOCUMENTS,
    ELSEWHERE,
    ROOT,
    RUN,
    SHOWN,
    Block,
    blocks,
    indented_blocks,
)
from tests.e2e.service import Home

RUNNABLE = {
    document: [block for block in blocks(document) if block.language in RUN] for document in DOCUMENTS
}
NAMES = {document: str(document.relative_to(ROOT)) for document in DOCUMENTS}
_SHARED = ROOT.parent / "shared"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES.get)
def test_every_block_says_what_it_is(document):
    languages = {block.place: block.language for block in blocks(document)}
    assert {place for place, language in languages.items() if language not in (*RUN, *SHOWN)} == set()
    assert indented_blocks(document) == []


def test_only_commands_that_are_shown_are_left_to_others():
    text = "".join(block.text for document in DOCUMENTS for block in blocks(document))
    lines = {COMMENT.sub("", line).strip() for line in text.splitlines()}
    assert ELSEWHERE.keys() <= lines


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if RUNNABLE[document]], ids=NAMES.get
)
def test_every_command_works(document, home, tmp_path, monkeypatch):
    """One reader, one folder, one service; shell blocks are one session, then Python blocks one program."""
    folder = tmp_path / "reader"
    _write_photos(folder / "photos")
    monkeypatch.chdir(folder)
    serving = home.start()
    serving.wait_ready()
    try:
        _run_shell([_localised(block.script(), home) for block in _blocks_in(document, "sh")], home)
        program: dict[str, object] = {}
        for block in _blocks_in(document, "python"):
            exec(compile(_localised(block.text, home), block.place, "exec"), program)
        for client in program.values():
            # As the end of a reader's program would.
            if isinstance(client, Client):
                client.close()
        _check_no_job_fails(home.client())
    finally:
        serving.interrupt()
        serving.wait_exit(timeout_s=60)


def _blocks_in(document: Path, language: str) -> list[Block]:
    found = [block for block in RUNNABLE[document] if block.language == language]
    left_out = [] if _SHARED.is_dir() else [block for block in found if "../shared" in block.text]
    for block in left_out:
        print(f"left out: {block.place} needs ../shared, which only developers have")  # noqa: T201
    return [block for block in found if block not in left_out]


def _localised(text: str, home: Home) -> str:
    """The places that documents name, where they are in this test."""
    here = {"http://127.0.0.1:8080": home.url, "../shared": _SHARED, "/data/photos": Path.cwd() / "photos"}
    for shown, real in here.items():
        text = text.replace(shown, str(real))
    return text


def _run_shell(scripts: list[str], home: Home) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NAS_URL": home.url,
        "NAS_HOME": str(home.folder),
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "".join(scripts)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"


def _check_no_job_fails(client: Client) -> None:
    """What was only begun ends well too."""
    with client:
        for job in list(client.jobs.list()):
            assert job.state is JobState.CANCELLED or job.wait(timeout=300), job


def _write_photos(folder: Path) -> None:
    """A folder of class folders: 100 handwritten digits of each of three classes, as PNG."""
    digits = load_digits()
    for label, name in enumerate(("zero", "one", "two")):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:100]):
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(
                folder / name / f"{number}.png"
            )

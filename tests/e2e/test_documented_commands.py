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

from tests.e2e.documents import DOCUMENTS, ROOT, RUN, SHOWN, Block, blocks, indented_blocks

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


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if RUNNABLE[document]], ids=NAMES.get
)
def test_every_command_works(document, home, tmp_path):
    """`photos/` is there, as the documents say, and the service is empty."""
    folder = tmp_path / "reader"
    _write_photos(folder / "photos")
    serving = home.start()
    serving.wait_ready()
    try:
        for block in RUNNABLE[document]:
            _run(block, folder, home)
    finally:
        serving.interrupt()
        serving.wait_exit(timeout_s=60)


def _run(block: Block, folder: Path, home) -> None:
    if "../shared" in block.text and not _SHARED.is_dir():
        return
    script = block.script().replace("http://127.0.0.1:8080", home.url).replace("../shared", str(_SHARED))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NAS_URL": home.url,
        "NAS_HOME": str(home.folder),
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert ran.returncode == 0, f"{block.place}:\n{block.text}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"


def _write_photos(folder: Path) -> None:
    """A folder of class folders: 100 handwritten digits of each of three classes, as PNG."""
    digits = load_digits()
    for label, name in enumerate(("zero", "one", "two")):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:100]):
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(
                folder / name / f"{number}.png"
            )

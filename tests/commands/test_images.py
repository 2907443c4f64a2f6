"""Which kind of data set a path is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.commands.exits import UsageError
from nas.commands.images import source_of


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("names", "given", "kind"),
    [
        (["cat/1.png", "dog/1.png"], ".", "folder"),
        (["train/cat/1.png", "test/cat/1.png"], ".", "folder"),
        (["train.parquet", "test.parquet"], ".", "parquet"),
        (["README.md", "data/train-00000.parquet"], ".", "huggingface"),
        (["metadata.csv", "1.png"], ".", "huggingface"),
        (["dataset_dict.json", "train/data.arrow", "train/state.json"], ".", "huggingface"),
        (["state.json", "dataset_info.json", "data.arrow"], ".", "huggingface"),
        (["a.parquet"], "a.parquet", "parquet"),
        (["A.NPZ"], "A.NPZ", "npz"),
        (["a.zip"], "a.zip", "archive"),
        (["a.tar.gz"], "a.tar.gz", "archive"),
        (["a.tgz"], "a.tgz", "archive"),
        (["a.tar.bz2"], "a.tar.bz2", "archive"),
        (["A.TAR.XZ"], "A.TAR.XZ", "archive"),
        (["digits/1/1.png"], "./digits", "folder"),
    ],
)
def test_the_kind_is_seen_from_what_lies_there(tmp_path, monkeypatch, names, given, kind):
    make(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    source = source_of(given, None)
    assert (source["kind"], Path(source["path"])) == (kind, (tmp_path / given).absolute())


def test_a_bundled_name_is_no_path(tmp_path, monkeypatch):
    make(tmp_path, "digits/1/1.png")
    monkeypatch.chdir(tmp_path)
    assert source_of("digits", None) == {"kind": "bundled", "name": "digits"}
    assert source_of("digits", "folder")["path"] == str(tmp_path / "digits")


def test_what_is_elsewhere_is_believed_when_its_kind_is_told():
    assert source_of("/far/away", "parquet") == {"kind": "parquet", "path": "/far/away"}


@pytest.mark.parametrize("names", [["1.png"], [".hidden/1.png"], ["notes.txt"]])
def test_a_folder_of_nothing_is_refused_with_what_it_should_hold(tmp_path, names):
    with pytest.raises(UsageError, match="a folder of its own"):
        source_of(str(make(tmp_path, *names)), None)


@pytest.mark.parametrize("name", ["a.csv", "image.png", "noending"])
def test_a_file_of_another_kind_is_refused_with_the_endings(tmp_path, name):
    with pytest.raises(UsageError, match=r"allowed: \.parquet"):
        source_of(str(make(tmp_path, name) / name), None)

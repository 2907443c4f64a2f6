"""Packed files: the same content as unpacked, nothing written elsewhere, nothing left behind."""

import gc
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from containers import encode, write_folder, write_npz, write_saved, write_tar, write_zip

from nas.errors import DatasetError
from supernet.data.archive import open_archive
from supernet.data.folder import open_folder
from supernet.data.parquet import ParquetColumns
from supernet.data.unpacking import UnpackLimits, unpack

COLUMNS = ParquetColumns(image="image", label="label")
PNG = encode(np.full((1, 4, 4), 90, dtype=np.uint8))


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where archives are unpacked; it must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()
    assert list(folder.iterdir()) == []


def contents(listing):
    return Counter((image.split, image.label, image.where, image.content) for image in listing.images())


def zip_of(path, *members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def tar_of(path, *members, mode="w"):
    with tarfile.open(path, mode) as file:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def two_classes(root):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    return root


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_tar_of_any_compression_holds_what_its_folder_does(tmp_path, data_kit, compression):
    folder = write_folder(tmp_path / "pets", data_kit.random_set(30))
    listing = open_archive(write_tar(tmp_path / "pets.tar", folder, compression), COLUMNS)
    assert contents(listing) == contents(open_folder(folder)) == contents(listing)


@pytest.mark.parametrize("wrapped_in", ["", "pets/", "a/b/"])
def test_a_zip_holds_what_its_folder_does_and_wrapping_folders_are_seen_through(
    tmp_path, data_kit, wrapped_in
):
    folder = write_folder(tmp_path / "pets", data_kit.random_set(30))
    packed = write_zip(tmp_path / "pets.zip", folder, wrapped_in)
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr("__MACOSX/._x", b"")
        file.writestr(".DS_Store", b"")
    assert contents(open_archive(packed, COLUMNS)) == contents(open_folder(folder))


@pytest.mark.parametrize(
    "write", [write_saved, lambda root, images: write_npz(root.parent / "a.npz", images)]
)
@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_other_layouts_are_found_in_archives(tmp_path, data_kit, write, pack):
    images = data_kit.random_set(30)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "saved", images)
    for compression in ("", "gz") if pack is write_tar else (None,):
        options = () if compression is None else (compression,)
        listing = open_archive(pack(tmp_path / "packed", tmp_path / "in", *options), COLUMNS)
        assert listing.class_names == images.class_names
        assert sum(1 for _ in listing.images()) == len(images)


def test_an_npz_is_taken_as_it_is(tmp_path, data_kit):
    images = data_kit.random_set(30)
    listing = open_archive(write_npz(tmp_path / "upload.npz", images), COLUMNS)
    assert [image.label for image in listing.images()] == images.labels.tolist()


def test_train_and_test_folders_are_found_in_an_archive(tmp_path):
    for split in ("train", "test"):
        two_classes(tmp_path / "in" / split)
    assert open_archive(write_zip(tmp_path / "a.zip", tmp_path / "in", "pets/"), COLUMNS).splits == (
        "train",
        "test",
    )


@pytest.mark.parametrize(
    "name",
    [
        "../out.png",
        "cat/../../out.png",
        "/out.png",
        "..\\out.png",
        "cat\\..\\..\\out.png",
        "C:\\out.png",
        "C:/out.png",
    ],
)
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path, temporary, name):
    packed = [zip_of(tmp_path / "a.zip", ("cat/1.png", PNG), (name, PNG))]
    packed.append(tar_of(tmp_path / "a.tar", ("cat/1.png", PNG), (name, PNG)))
    for archive in packed:
        with pytest.raises(DatasetError, match=r"does not stay in the archive's folder; pack it again"):
            open_archive(archive, COLUMNS)
        assert list(temporary.iterdir()) == []
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize(
    "member",
    [
        link("cat/2.png", "/etc/passwd", tarfile.SYMTYPE),
        link("cat/2.png", "1.png", tarfile.SYMTYPE),
        link("cat/2.png", "cat/1.png", tarfile.LNKTYPE),
        link("cat/2.png", "", tarfile.CHRTYPE),
        link("cat/2.png", "", tarfile.BLKTYPE),
        link("cat/2.png", "", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, member):
    with pytest.raises(DatasetError, match=r"'cat/2\.png', which is no plain file"):
        open_archive(tar_of(tmp_path / "a.tar", ("cat/1.png", PNG), (member, b"")), COLUMNS)


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("cat/2.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DatasetError, match=r"'cat/2\.png', which is no plain file"):
        open_archive(zip_of(tmp_path / "a.zip", ("cat/1.png", PNG), (info, "/etc/passwd")), COLUMNS)


def test_a_locked_zip_is_told(tmp_path):
    packed = zip_of(tmp_path / "a.zip", ("cat/1.png", PNG))
    content = bytearray(packed.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both headers
        content[content.index(start) + offset] |= 1
    packed.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match="locked with a password"):
        open_archive(packed, COLUMNS)


def test_two_members_of_one_name_are_refused(tmp_path):
    tar = tar_of(tmp_path / "a.tar", ("cat/1.png", PNG), ("cat/./1.png", PNG))
    with pytest.raises(DatasetError, match="two members named"):
        open_archive(tar, COLUMNS)
    tar = tar_of(tmp_path / "b.tar", ("cat", PNG), ("cat/1.png", PNG))
    with pytest.raises(DatasetError, match="two members named"):
        open_archive(tar, COLUMNS)


@pytest.mark.parametrize("compression", ["zip", "gz", "bz2", "xz"])
def test_what_swells_is_stopped_at_the_ratio(tmp_path, compression):
    blank = bytes(4 << 20)
    members = (("cat/1.png", blank), ("dog/1.png", blank))
    if compression == "zip":
        packed = zip_of(tmp_path / "a", *members, compression=zipfile.ZIP_DEFLATED)
    else:
        packed = tar_of(tmp_path / "a", *members, mode=f"w:{compression}")
    (tmp_path / "out").mkdir()
    limits = UnpackLimits(ratio=100, ratio_from_bytes=3 << 20)
    with pytest.raises(DatasetError, match="more than 100 times its size"):
        unpack(packed, tmp_path / "out", limits)
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written <= 4 << 20


def test_a_header_of_a_tar_may_not_swell_either(tmp_path):
    info = tarfile.TarInfo("cat/1.png")
    info.pax_headers = {"comment": "x" * (8 << 20)}
    packed = tar_of(tmp_path / "a", (info, PNG), mode="w:gz")
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="more than 100 times its size"):
        unpack(packed, tmp_path / "out", UnpackLimits(ratio=100, ratio_from_bytes=1 << 20))
    assert not any((tmp_path / "out").rglob("*"))


def test_too_many_members_and_too_many_bytes_are_refused(tmp_path):
    members = [(f"cat/{number}.png", PNG) for number in range(20)]
    (tmp_path / "out").mkdir()
    for packed in (zip_of(tmp_path / "a.zip", *members), tar_of(tmp_path / "a.tar", *members)):
        with pytest.raises(DatasetError, match="more than 19 members"):
            unpack(packed, tmp_path / "out", UnpackLimits(members=19))
        for path in (tmp_path / "out" / "cat").iterdir():
            path.unlink()
        with pytest.raises(DatasetError, match="unpacks to more than 0 GiB"):
            unpack(packed, tmp_path / "out", UnpackLimits(total_bytes=10 * len(PNG)))
        for path in (tmp_path / "out" / "cat").iterdir():
            path.unlink()


@pytest.mark.parametrize("compression", ["zip", "", "gz", "bz2", "xz"])
def test_an_archive_cut_anywhere_is_told_and_leaves_nothing(tmp_path, data_kit, temporary, compression):
    folder = write_folder(tmp_path / "in", data_kit.random_set(30))
    pack = write_zip if compression == "zip" else partial(write_tar, compression=compression)
    packed = pack(tmp_path / "a", folder)
    whole = packed.read_bytes()
    # A plain tar ends in zeros that may be fewer; between its members it is cut at a block.
    end, step = (len(whole.rstrip(b"\0")), 512) if compression == "" else (len(whole), len(whole) // 25)
    for length in [*range(0, end, step), end - 1]:
        packed.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="pack it again"):
            open_archive(packed, COLUMNS)
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b but no gzip", b"PK\x03\x04 but no zip", b""])
def test_what_is_no_archive_is_told(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.zip cannot be read as zip, tar.* pack it again"):
        open_archive(path, COLUMNS)


def test_refusals_name_the_archive_and_not_where_it_was_unpacked(tmp_path):
    packed = zip_of(tmp_path / "pets.zip", ("cat/1.png", PNG), ("dog/notes.txt", b""))
    with pytest.raises(DatasetError, match=r"class folder .*/pets\.zip/dog holds no images") as caught:
        open_archive(packed, COLUMNS)
    assert "nas-scratch" not in str(caught.value)


@pytest.mark.parametrize("members", [[], [("README.md", b"")], [("1.png", PNG)]])
def test_an_archive_without_a_known_layout_is_refused(tmp_path, members):
    with pytest.raises(DatasetError, match=r"is empty|no class folders"):
        open_archive(zip_of(tmp_path / "a.zip", *members), COLUMNS)


def test_an_empty_class_folder_in_an_archive_is_told(tmp_path):
    folder = two_classes(tmp_path / "in")
    (folder / "eel").mkdir()
    for packed in (write_zip(tmp_path / "a.zip", folder), write_tar(tmp_path / "a.tar", folder)):
        with pytest.raises(DatasetError, match=r"eel holds no images"):
            open_archive(packed, COLUMNS)


def test_unpacked_files_go_when_closed_when_stopped_and_when_forgotten(tmp_path, temporary):
    packed = write_zip(tmp_path / "a.zip", two_classes(tmp_path / "in"))
    listing = open_archive(packed, COLUMNS)
    assert len(list(temporary.iterdir())) == 1
    listing.close()
    assert list(temporary.iterdir()) == []
    listing.close()

    forgotten = open_archive(packed, COLUMNS)
    images = forgotten.images()
    del forgotten
    assert len(list(images)) == 3  # what still reads still has its files
    del images
    gc.collect()
    assert list(temporary.iterdir()) == []

    class StopError(Exception):
        pass

    calls = []

    def stop():
        calls.append(None)
        if len(calls) > 4:
            raise StopError

    with pytest.raises(StopError):
        open_archive(packed, COLUMNS, stop)
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_stays(tmp_path, temporary):
    packed = write_zip(tmp_path / "a.zip", two_classes(tmp_path / "in"))
    script = (
        "import os, signal, sys; from pathlib import Path; from supernet.data.archive import open_archive; "
        "from supernet.data.parquet import ParquetColumns; "
        "held = open_archive(Path(sys.argv[1]), ParquetColumns(image='image', label='label')); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.run(
        [sys.executable, "-c", script, str(packed)],
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert killed.returncode == -9
    (left,) = temporary.iterdir()
    first = open_archive(packed, COLUMNS)
    assert not left.exists()
    second = open_archive(packed, COLUMNS)
    assert len(list(first.images())) == len(list(second.images())) == 3


def test_a_folder_is_no_archive(tmp_path):
    with pytest.raises(DatasetError, match="is no file"):
        open_archive(tmp_path, COLUMNS)

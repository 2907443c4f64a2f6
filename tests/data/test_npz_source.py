"""Arrays in one npz file: spellings, layouts, and what is refused."""

import io
import zipfile

import numpy as np
import pytest

from nas.errors import DatasetError
from supernet.data.listing import GivenSplit
from supernet.data.npz import open_npz

RNG = np.random.default_rng(0)
LABELS = np.array([2, 0, 1, 0, 2, 1])


def pixels(*shape):
    return RNG.integers(0, 256, (6, *shape), dtype=np.uint8)


def save(tmp_path, compressed=False, **arrays):
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def read(listing, split=GivenSplit.TRAIN):
    return [(image.label, image.content) for image in listing.images() if image.split == split]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("spelling", ["{0}_images {0}_labels", "x_{0} y_{0}"])
def test_every_spelling_gives_its_splits_lazily_and_again(tmp_path, spelling, compressed):
    arrays, expected = {}, {}
    for split in ("test", "train", "val"):
        expected[split] = pixels(5, 4, 3)
        arrays |= zip(spelling.format(split).split(), (expected[split], LABELS[:, None]), strict=True)
    listing = open_npz(save(tmp_path, compressed, **arrays))
    assert listing.splits == tuple(GivenSplit)
    assert listing.class_names == ("0", "1", "2")
    for split in GivenSplit:
        for _ in range(2):
            labels, contents = zip(*read(listing, split), strict=True)
            assert list(labels) == LABELS.tolist()
            assert np.array_equal(np.stack(contents), expected[split])
    first = next(listing.images())
    assert first.where == f"row 0 of {spelling.format('train').split()[0]}"


def test_val_and_test_may_be_missing_and_classes_may_have_names(tmp_path):
    listing = open_npz(
        save(tmp_path, images=pixels(4, 4), labels=LABELS, class_names=np.array(["cat", "dög", "eel"]))
    )
    assert listing.splits == (GivenSplit.TRAIN,)
    assert listing.class_names == ("cat", "dög", "eel")


def test_without_names_the_sorted_labels_of_all_splits_are_the_names(tmp_path):
    listing = open_npz(
        save(tmp_path, x_train=pixels(4, 4), y_train=LABELS * 10, x_test=pixels(4, 4), y_test=LABELS + 9)
    )
    assert listing.class_names == ("0", "9", "10", "11", "20")
    assert [label for label, _ in read(listing)] == [4, 0, 2, 0, 4, 2]
    assert [label for label, _ in read(listing, GivenSplit.TEST)] == [3, 1, 2, 1, 3, 2]


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (1, 5, 4), (3, 5, 4), (1, 1, 1)])
def test_every_layout_gives_rows_of_height_width_channels(tmp_path, shape):
    images = pixels(*shape)
    expected = (
        images.transpose(0, 2, 3, 1) if len(shape) == 3 and shape[0] in (1, 3) and shape[2] == 4 else images
    )
    contents = np.stack(
        [content for _, content in read(open_npz(save(tmp_path, images=images, labels=LABELS)))]
    )
    assert np.array_equal(contents, expected)


@pytest.mark.parametrize("shape", [(3, 5, 3), (1, 28, 1), (3, 28, 1), (1, 1, 3)])
def test_a_shape_that_may_be_read_two_ways_is_refused_with_the_way_out(tmp_path, shape):
    with pytest.raises(DatasetError, match=r"may be \(n, c, h, w\) or \(n, h, w, c\); save greyscale"):
        open_npz(save(tmp_path, images=pixels(*shape), labels=LABELS))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": pixels(4, 4) / 255, "labels": LABELS}, r"float64, not uint8.*\* 255"),
        ({"images": pixels(4, 4).astype(np.int32), "labels": LABELS}, "int32, not uint8"),
        ({"images": pixels(4, 4, 4), "labels": LABELS}, "neither 1 nor 3 channels"),
        ({"images": pixels(4), "labels": LABELS}, r"none of \(n, h, w\)"),
        ({"images": pixels(4, 0), "labels": LABELS}, "with images in it"),
        ({"images": pixels(4, 4)[:0], "labels": LABELS[:0]}, "with images in it"),
        ({"images": np.asfortranarray(pixels(5, 4)), "labels": LABELS}, "ascontiguousarray"),
        ({"images": pixels(4, 4), "labels": LABELS[:5]}, "6 images .* 5 labels"),
        ({"images": pixels(4, 4), "labels": LABELS.astype(float)}, "float64, not integers"),
        ({"images": pixels(4, 4), "labels": np.eye(6, dtype=int)}, r"argmax\(axis=1\)"),
        ({"images": pixels(4, 4), "labels": LABELS - 1}, "label -1 at row 1 .* below 0"),
        (
            {"images": pixels(4, 4), "labels": LABELS, "class_names": np.array(["a", "b"])},
            r"label 2 .*0\.\.1",
        ),
        ({"images": pixels(4, 4), "labels": LABELS, "class_names": np.arange(3)}, "dtype=str"),
        ({"images": pixels(4, 4), "labels": LABELS, "class_names": np.array([{}, {}, {}])}, "unpickled"),
        ({"images": np.array([None] * 6), "labels": LABELS}, "unpickled"),
        ({"images": pixels(4, 4)}, "no array 'labels' beside images"),
        ({"images": pixels(4, 4), "labels": LABELS, "x_train": pixels(4, 4)}, "one of these spellings only"),
        (
            {"pictures": pixels(4, 4), "labels_": LABELS},
            "holds the arrays pictures, labels_; name them images",
        ),
        ({"images": pixels(4, 4), "labels": LABELS, "weights": LABELS}, "arrays weights .* leave them out"),
        ({"x_train": pixels(4, 4), "y_train": LABELS, "x_val": LABELS}, "no array 'y_val' beside x_val"),
        ({}, "holds the arrays none"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(tmp_path, arrays, message):
    with pytest.raises(DatasetError, match=message):
        open_npz(save(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 nor this"])
def test_what_is_no_npz_is_told(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read as npz"):
        open_npz(path)


def test_a_file_cut_anywhere_never_gives_other_pixels(tmp_path):
    images = pixels(8, 8, 3)
    path = save(tmp_path, compressed=True, images=images, labels=LABELS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 31):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="npz"):
            read(open_npz(path))


def test_damaged_pixels_are_told_by_their_check_sum(tmp_path):
    images = pixels(8, 8, 3)
    path = save(tmp_path, images=images, labels=LABELS)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(images[3].tobytes()) + 5] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(DatasetError, match="cannot be read as npz"):
        read(open_npz(path))


def test_a_header_that_promises_more_than_there_is_is_told(tmp_path):
    path = save(tmp_path, images=pixels(4, 4), labels=LABELS)
    with zipfile.ZipFile(path) as file:
        labels = file.read("labels.npy")
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        claim, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 4, 4)}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", claim.getvalue() + bytes(96))
        file.writestr("labels.npy", labels)
    with pytest.raises(DatasetError, match="16000000000000 bytes declared, fewer there"):
        open_npz(path)

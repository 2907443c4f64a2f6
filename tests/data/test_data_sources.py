"""What a source yields: decoded pixels, labels, names; and what it refuses."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nas.errors import DatasetError
from supernet.data import DataSource, GivenSplit, ImageSet, SourceKind, load_source
from supernet.data.decode import MAX_IMAGE_PIXELS

CIFAR_TEST = Path(__file__).parents[3] / "shared" / "data" / "cifar10" / "test.parquet"


def parquet(path, **fields):
    return as_listed(DataSource(kind=SourceKind.PARQUET, path=str(path), **fields))


def as_listed(source):
    """The given splits, each in the order of the source, and the fingerprint."""
    decoded = load_source(source)
    sets = {split: decoded.given(split) for split in decoded.order.counts}
    listed = {split: images.take(np.argsort(images.rows)) for split, images in sets.items()}
    return SimpleNamespace(
        fingerprint=decoded.fingerprint, **{split.value: listed.get(split) for split in GivenSplit}
    )


def test_digits_are_all_there_and_span_the_byte_range():
    digits = as_listed(DataSource(kind=SourceKind.BUNDLED, name="digits"))
    assert digits.test is None
    assert digits.train.images.shape == (1797, 1, 8, 8)
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)
    assert digits.train.class_names == tuple("0123456789")
    values = np.unique(digits.train.images)
    assert values.tolist() == [round(v * 255 / 16) for v in range(17)]


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_parquet_gives_back_the_pixels_and_the_fingerprint(tmp_path, data_kit, channels):
    images = data_kit.random_set(60, channels=channels)
    read = parquet(data_kit.write_set(tmp_path / "a.parquet", images))
    assert np.array_equal(read.train.images, images.images)
    assert np.array_equal(read.train.labels, images.labels)
    assert read.train.class_names == images.class_names
    assert read.fingerprint == data_kit.decoded(images).fingerprint


def test_fingerprint_ignores_the_container_and_sees_the_content(tmp_path, data_kit):
    images = data_kit.random_set(60)
    whole = parquet(data_kit.write_set(tmp_path / "a.parquet", images, row_group_size=7, compression="zstd"))
    first, second = images.take(np.arange(20)), images.take(np.arange(20, len(images)))
    data_kit.write_set(tmp_path / "parts" / "data" / "train-00000-of-00002.parquet", first)
    data_kit.write_set(tmp_path / "parts" / "data" / "train-00001-of-00002.parquet", second)
    parts = parquet(tmp_path / "parts")
    original = data_kit.decoded(images).fingerprint
    assert whole.fingerprint == parts.fingerprint == original
    backwards = images.take(np.arange(len(images))[::-1])
    assert data_kit.decoded(backwards).fingerprint == original

    pixels, labels = images.images.copy(), images.labels.copy()
    pixels[5, 0, 0, 0] ^= 1
    labels[5] = (labels[5] + 1) % 4
    changed = [
        (ImageSet.whole(pixels, images.labels, images.class_names),),
        (ImageSet.whole(images.images, labels, images.class_names),),
        (ImageSet.whole(images.images, images.labels, ("a", "b", "c", "d")),),
        (first, second),
        (first, None, second),
    ]
    prints = {data_kit.decoded(*each).fingerprint for each in changed}
    assert original not in prints
    assert len(prints) == 5


def test_a_folder_gives_train_and_test(tmp_path, data_kit):
    train, test = data_kit.random_set(60), data_kit.random_set(30, seed=1)
    data_kit.write_set(tmp_path / "train.parquet", train)
    data_kit.write_set(tmp_path / "test.parquet", test)
    folder = parquet(tmp_path)
    files = as_listed(
        DataSource(
            kind=SourceKind.PARQUET,
            train=str(tmp_path / "train.parquet"),
            test=str(tmp_path / "test.parquet"),
        )
    )
    for read in (folder, files):
        assert np.array_equal(read.train.images, train.images)
        assert np.array_equal(read.test.images, test.images)


def test_without_named_classes_the_sorted_labels_are_the_names(tmp_path, data_kit):
    images = data_kit.random_set(30)
    data_kit.write_parquet(
        tmp_path / "train.parquet",
        [data_kit.encode(pixels) for pixels in images.images],
        (images.labels * 10 + 7).tolist(),
        names=None,
    )
    read = parquet(tmp_path / "train.parquet").train
    assert read.class_names == ("7", "17", "27", "37")
    assert np.array_equal(read.labels, images.labels)


def test_one_colour_image_makes_all_of_them_rgb(tmp_path, data_kit):
    grey = np.full((1, 6, 6), 90, dtype=np.uint8)
    colour = np.zeros((3, 6, 6), dtype=np.uint8)
    path = data_kit.write_parquet(
        tmp_path / "a.parquet", [data_kit.encode(grey), data_kit.encode(colour)], [0, 1]
    )
    read = parquet(path).train
    assert read.images.shape == (2, 3, 6, 6)
    assert (read.images[0] == 90).all()


def test_odd_sizes_are_resized_to_the_most_common_one_over_train_and_test(tmp_path, data_kit):
    rng = np.random.default_rng(0)
    shapes = [(3, 6, 8), (3, 20, 20), (3, 6, 8)]
    pixels = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    encoded = [data_kit.encode(each) for each in pixels]
    data_kit.write_parquet(tmp_path / "train.parquet", encoded[:2], [0, 1])
    data_kit.write_parquet(tmp_path / "test.parquet", encoded[2:], [0])
    read = parquet(tmp_path)
    assert read.train.images.shape[1:] == read.test.images.shape[1:] == (3, 6, 8)
    assert np.array_equal(read.train.images[0], pixels[0])
    reference = Image.fromarray(pixels[1].transpose(1, 2, 0)).resize((8, 6), Image.Resampling.BICUBIC)
    assert np.array_equal(read.train.images[1], np.asarray(reference).transpose(2, 0, 1))


def test_a_camera_lying_on_its_side_is_set_upright(tmp_path, data_kit):
    pixels = np.zeros((3, 8, 16), dtype=np.uint8)
    pixels[:, :, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn anticlockwise: what is left belongs on top
    encoded = data_kit.encode(pixels, "JPEG", exif=exif, quality=95)
    read = parquet(data_kit.write_parquet(tmp_path / "a.parquet", [encoded], [0])).train
    assert read.images.shape == (1, 3, 16, 8)
    assert read.images[0, :, :7].min() > 200
    assert read.images[0, :, 9:].max() < 50


def test_a_transparent_palette_is_read_as_white_without_a_warning(tmp_path, data_kit):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30] + [0] * 765)
    file = tmp_path / "p.png"
    picture.save(file, transparency=bytes([0, 255]))
    read = parquet(data_kit.write_parquet(tmp_path / "a.parquet", [file.read_bytes()], [0])).train
    assert read.images[0, :, 0, 0].tolist() == [255, 255, 255]


def damaged(data_kit):
    return data_kit.encode(np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8), "JPEG")[
        :-200
    ]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda kit: b"no image", "none of PNG, JPEG"),
        (damaged, "truncated"),
        (lambda kit: None, "only a path"),
        (lambda kit: kit.encode(np.zeros((1, 4097, 4096), dtype=np.uint8)), str(MAX_IMAGE_PIXELS)),
    ],
)
def test_an_unreadable_image_is_named_by_row_and_file(tmp_path, data_kit, spoil, reason):
    good = data_kit.encode(np.zeros((3, 32, 32), dtype=np.uint8))
    path = data_kit.write_parquet(tmp_path / "a.parquet", [good, good, spoil(data_kit)], [0, 1, 0])
    with pytest.raises(DatasetError, match=rf"row 2 of .*a\.parquet .*{reason}.*; "):
        parquet(path)


@pytest.mark.parametrize(("label", "allowed"), [(4, r"0\.\.3"), (-1, r"0\.\.3")])
def test_a_label_beyond_the_named_classes_is_refused(tmp_path, data_kit, label, allowed):
    good = data_kit.encode(np.zeros((3, 4, 4), dtype=np.uint8))
    path = data_kit.write_parquet(tmp_path / "a.parquet", [good, good], [0, label])
    with pytest.raises(DatasetError, match=f"label {label} at row 1 .*{allowed}"):
        parquet(path)


def test_a_missing_label_is_refused(tmp_path, data_kit):
    good = data_kit.encode(np.zeros((3, 4, 4), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"row 1 .* has no label"):
        parquet(data_kit.write_parquet(tmp_path / "a.parquet", [good, good], [0, None]))


def test_files_that_name_the_classes_differently_are_refused(tmp_path, data_kit):
    images = data_kit.random_set(30)
    data_kit.write_set(tmp_path / "train.parquet", images)
    other = ImageSet.whole(images.images, images.labels, ("dog", "cat", "eel", "fox"))
    data_kit.write_set(tmp_path / "test.parquet", other)
    with pytest.raises(DatasetError, match="names the classes"):
        parquet(tmp_path)


def test_other_column_names_are_told_and_can_be_given(tmp_path, data_kit):
    images = data_kit.random_set(30)
    path = data_kit.write_set(tmp_path / "a.parquet", images, columns=("img", "fine_label"))
    with pytest.raises(DatasetError, match=r"no column 'image'.*image_column"):
        parquet(path)
    read = parquet(path, image_column="img", label_column="fine_label").train
    assert read.class_names == images.class_names


def test_places_without_train_files_are_refused(tmp_path, data_kit):
    with pytest.raises(DatasetError, match="does not exist"):
        parquet(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no train\*\.parquet"):
        parquet(tmp_path)
    for name in ("plain", "cropped"):
        data_kit.write_set(tmp_path / name / "train.parquet", data_kit.random_set(30))
    with pytest.raises(DatasetError, match="several places"):
        parquet(tmp_path)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        parquet(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "bundled", "name": "digits"},
        {"kind": "parquet", "path": "folder", "image_column": "img"},
        {"kind": "parquet", "train": "a.parquet", "test": "b.parquet"},
        {"kind": "folder", "path": "a", "skip_unreadable": True},
        {"kind": "npz", "path": "a.npz"},
        {"kind": "huggingface", "path": "a", "image_column": "img"},
        {"kind": "archive", "path": "a.zip", "label_column": "fine_label"},
        {"kind": "archive", "upload_id": "up_1", "stored_size": [32, 48], "fit": "centre_crop"},
    ],
)
def test_a_source_survives_json(value):
    source = DataSource.from_json(value)
    assert DataSource.from_json(source.to_json()) == source
    assert value.items() <= source.to_json().items()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "kind None is not one of bundled, parquet"),
        ({"kind": "zip"}, "'zip' is not one of bundled, parquet"),
        ({"kind": "bundled", "name": "mnist"}, "'mnist' is not one of digits"),
        (
            {"kind": "bundled", "name": "digits", "path": "a"},
            "fields path are not among kind, name, skip_unreadable",
        ),
        ({"kind": "parquet"}, "exactly one"),
        ({"kind": "parquet", "path": "a", "train": "b"}, "exactly one"),
        ({"kind": "parquet", "path": "a", "test": "b"}, "train, val and test"),
        ({"kind": "parquet", "name": "digits", "path": "a"}, "fields name are not among kind, path, train"),
        ({"kind": "parquet", "path": 3}, "path is 3"),
        ({"kind": "parquet", "paths": "a"}, "fields paths are not among kind, path"),
        ({"kind": "folder"}, "folder source has no path"),
        ({"kind": "npz", "path": ""}, "path is ''"),
        ({"kind": "npz", "path": "a", "image_column": "x"}, "fields image_column are not among kind, path"),
        ({"kind": "archive"}, "either path or upload_id"),
        ({"kind": "archive", "path": "a", "upload_id": "up_1"}, "either path or upload_id"),
        ({"kind": "folder", "path": "a", "skip_unreadable": "yes"}, "not true or false"),
    ],
)
def test_an_impossible_source_is_refused_with_what_is_allowed(value, message):
    with pytest.raises(DatasetError, match=message):
        DataSource.from_json(value)


def test_fields_of_another_kind_are_refused_where_a_source_is_made_too():
    with pytest.raises(DatasetError, match=r"a folder source takes kind, path, .* not train; leave it out"):
        DataSource(kind=SourceKind.FOLDER, path="a", train="b")


@pytest.mark.parametrize("kind", ["folder", "npz", "huggingface", "archive"])
def test_a_place_that_is_not_there_is_told(kind):
    with pytest.raises(DatasetError, match="/nowhere does not exist on this machine"):
        load_source(DataSource.from_json({"kind": kind, "path": "/nowhere"}))


@pytest.mark.skipif(not CIFAR_TEST.exists(), reason="needs ../shared/data/cifar10/test.parquet")
def test_cifar_test_split_is_as_documented():
    read = parquet(CIFAR_TEST).train
    assert read.images.shape == (10_000, 3, 32, 32)
    assert read.class_names[:3] == ("airplane", "automobile", "bird")
    assert set(Counter(read.labels.tolist()).values()) == {1000}
    means = read.images.mean(axis=(0, 2, 3)) / 255
    assert means == pytest.approx([0.4913, 0.4821, 0.4465], abs=0.01)
